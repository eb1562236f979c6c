"""The plan of an account's rotation: what is done when, by whom and why. Pure: no vault, no clock of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.model.account import Account
from broker.model.due import DueDate, LeadTime, Renewal, Rule, account_due, lead_time
from broker.model.duration import duration_text
from broker.model.generation import PromotionMode, RenewalMode
from broker.model.life_cycle import Phase, Who
from broker.model.maintenance import Maintenance
from broker.model.names import AccountName
from broker.model.todo import Todo, forked_todo, kept_beside, must_tell, next_todo, overlap_end

LAST_DAY: Final = timedelta(days=1)  # before the end: a promotion that found no window happens by then
_HORIZON: Final = timedelta(days=2 * 366)  # no window for a retirement is looked for beyond it
_NONE: Final = Maintenance()


class Action(Enum):
    """A step of a rotation."""

    RENEW = "renew"  # make a signing request, and send it
    SEND = "send"  # send the request that there is
    REPLY = "reply"  # the partner's answer is expected
    PROMOTE = "promote"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Step:
    """A step, when it is expected, and why then. `at` is None if nothing says when."""

    action: Action
    at: datetime | None
    because: str


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """What comes next for an account. The scheduler takes a step whose time has come, if it is `automatic`."""

    account: AccountName
    phase: Phase
    who: Who
    automatic: bool
    message: str
    hint: str
    due: DueDate | None
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    since: datetime | None = None  # when the phase began


def account_plan(
    account: Account, renewal: Renewal, now: datetime, maintenance: Maintenance = _NONE, *, forked: bool = False
) -> AccountPlan:
    """Return the plan of `account`, by the renewal times of its profile."""
    due = account_due(account, renewal)
    todo = forked_todo(account) if forked else next_todo(account, due, renewal, now)
    planner = _Planner(account, renewal, maintenance, now, due, todo)
    return AccountPlan(
        account.name,
        todo.phase,
        todo.who,
        _automatic(account, todo),
        todo.message,
        todo.hint,
        due,
        *planner.planned(),
        planner.since(),
    )


def _automatic(account: Account, todo: Todo) -> bool:
    """Return whether the scheduler takes the next step by itself."""
    by = todo.phase.row.automatic
    if by == "promotion":
        return account.promotion is PromotionMode.AUTO
    return by == "renewal" and account.renewal is RenewalMode.AUTO


@dataclass(frozen=True, slots=True)
class _Planner:
    account: Account
    renewal: Renewal
    maintenance: Maintenance
    now: datetime
    due: DueDate | None
    todo: Todo

    def planned(self) -> tuple[tuple[Step, ...], tuple[str, ...]]:
        """Return the steps that go on or come next, the overlap's first, and what a person should know before."""
        steps, warnings = [*self._retirements(), *self._asking()], list(self._snoozed_too_long())
        ready = self.now if self.account.automatic_candidates else self._reply_at(steps)
        if ready is None:
            return tuple(steps), tuple(warnings)
        if not self.account.automatic_candidates:
            steps.append(Step(Action.REPLY, ready, f"lead time {duration_text(self.lead.time)}: {self.lead.because}"))
        promotion, in_time = self._promotion(max(ready, self.now))
        if not in_time:
            warnings.append(promotion.because)
        return (*steps, promotion), tuple(warnings)

    def _asking(self) -> Iterator[Step]:
        """Yield the step that asks the partner's people for a certificate, if it is still to be done."""
        request = self.account.open_request
        if self.account.automatic_candidates:
            return
        if request and not request.submissions:
            yield Step(Action.SEND, self.now, f"signing request {request.number} was never sent")
        elif request and must_tell(self.account, request):
            yield Step(Action.SEND, self.now, "the partner must revoke the certificate of a key that others know")
        elif not request and self.due and not self._waits_for_person():
            yield self._renewal(self.due)

    def _snoozed_too_long(self) -> Iterator[str]:
        due = self.due
        if due and due.rule is Rule.SNOOZE and due.at > due.not_after - due.needed:
            yield (
                f"it is snoozed until {due.at:%F %TZ}: less than the {duration_text(due.needed)} before its end that "
                "the partner's people and our margin need"
            )

    def since(self) -> datetime:
        """Return when the phase began; when the last set became current if nothing else says so."""
        account, due, request = self.account, self.due, self.account.open_request
        if self.todo.phase is Phase.NOT_DUE and account.current:
            return account.current.since  # most accounts, most of the time
        sent = request.submissions[0].at if request and request.submissions else None
        begins = {
            Phase.COMPROMISED: account.compromise and account.compromise.at,
            Phase.EXPIRED: due and due.not_after,
            Phase.STOPPED: account.breaker.at if account.breaker else account.tries and account.tries[-1].at,
            Phase.SUSPENDED: account.suspended and account.suspended.at,
            Phase.CANDIDATE: account.candidates and account.candidates[-1].since,
            Phase.PAUSED: account.candidates and account.candidates[-1].since,
            Phase.REFUSED: account.refused_request and account.refused_request.closed_at,
            Phase.OVERDUE: sent and sent + self.lead.time,
            Phase.SENT: sent,
            Phase.DRAFTED: request and request.drafted_at,
            Phase.DUE: due and due.at,
            Phase.DISABLED: due and due.at,
            Phase.RETIRING: min((overlap_end(account, g, self.renewal) for g in kept_beside(account)), default=None),
        }
        found = begins.get(self.todo.phase)
        return found or (account.current.since if account.current else account.created_at)

    @property
    def lead(self) -> LeadTime:
        """How long the partner's people take."""
        return self.due.lead if self.due else lead_time(self.account, self.renewal.lead_time)

    def _reply_at(self, steps: Sequence[Step]) -> datetime | None:
        """Return when the partner's answer is expected; None if nothing is asked, or will be."""
        request = self.account.open_request
        if request:
            return (request.submissions[0].at if request.submissions else self.now) + self.lead.time
        return next((step.at + self.lead.time for step in steps if step.action is Action.RENEW and step.at), None)

    def _waits_for_person(self) -> bool:
        """Return whether no request is made before a person corrected the refused one, or enabled renewal."""
        return self.account.renewal is RenewalMode.DISABLED or self.account.refused_request is not None

    def _renewal(self, due: DueDate) -> Step:
        current, victim = self.account.current, self.account.compromised
        if current and victim and current.parts.key == victim.parts.key:
            return Step(Action.RENEW, self.now, "others know the current key")
        return Step(Action.RENEW, max(due.at, self.now), due.because)

    def _deadline(self, due: DueDate) -> datetime:
        """Return by when a promotion happens even without a window."""
        return due.not_after - min(LAST_DAY, (due.not_after - due.not_before) / 4)

    def _promotion(self, ready: datetime) -> tuple[Step, bool]:
        """Return the promotion of what is ready then, and whether it waits for a window or needs none."""
        due = self.due
        if due is None:
            return Step(Action.PROMOTE, ready, "nothing is current, so nobody waits for a window"), True
        if self.todo.phase is Phase.COMPROMISED:
            return Step(Action.PROMOTE, ready, "others know a key of the account: no window is waited for"), True
        end = f"the certificate ends on {due.not_after:%F %TZ}"
        if due.not_after <= ready:
            return Step(Action.PROMOTE, ready, f"{end}: no window is waited for"), True
        deadline = self._deadline(due)
        opening = self.maintenance.opening(ready, deadline)
        if opening:
            window = f"in window {opening.window}" if opening.window else "as soon as the answer is there"
            return Step(Action.PROMOTE, opening.at, window + self._held_back(ready)), True
        thawed = self.maintenance.thawed(ready)
        if thawed < deadline:
            return Step(Action.PROMOTE, thawed, f"no window opens in time, and {end}: none is waited for"), False
        frozen = f"in freeze {self._frozen(ready)}" if self.maintenance.freeze_at(ready) else "on the last day"
        return Step(Action.PROMOTE, max(ready, deadline), f"{frozen}: {end}"), False

    def _retirements(self) -> Iterator[Step]:
        for generation in kept_beside(self.account):
            ready = max(overlap_end(self.account, generation, self.renewal), self.now)
            if self.account.compromise_of(generation.parts.key):
                yield Step(Action.RETIRE, ready, f"generation {generation.number}: others know its key")
                continue
            opening = self.maintenance.opening(ready, ready + _HORIZON)
            because = f"generation {generation.number}, if no consumer holds it then"
            if opening is None:
                yield Step(Action.RETIRE, None, f"{because}; no window opens within two years")
                continue
            window = f", in window {opening.window}" if opening.window else ""
            yield Step(Action.RETIRE, opening.at, because + window + self._held_back(ready))

    def _held_back(self, ready: datetime) -> str:
        return f", after freeze {self._frozen(ready)}" if self.maintenance.freeze_at(ready) else ""

    def _frozen(self, at: datetime) -> str:
        freeze = self.maintenance.freeze_at(at)
        return freeze.name if freeze else ""
