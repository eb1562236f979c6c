"""The plan of an account's rotation: what is done when, by whom and why. Pure: no vault, no clock of its own."""

from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from msgspec import Struct

from broker.model.account import Account
from broker.model.due import DueDate, LeadTime, Renewal, Rule, account_due, lead_time
from broker.model.duration import duration_text
from broker.model.generation import Generation, PromotionMode, RenewalMode
from broker.model.life_cycle import Phase, Who
from broker.model.maintenance import Maintenance
from broker.model.names import AccountName
from broker.model.todo import Todo, forked_todo, kept_beside, must_tell, next_todo, overlap_end

LAST_DAY: Final = timedelta(days=1)  # before the end: a promotion that found no window happens by then
_HORIZON: Final = timedelta(days=2 * 366)  # no window for a retirement is looked for beyond it
_NONE: Final = Maintenance()


# gc=False, here and in `due` and `todo`: nothing in a plan refers back to it, and a sweep makes many plans


class Action(Enum):
    """A step of a rotation."""

    RENEW = "renew"  # make a signing request, and send it
    SEND = "send"  # send the request that there is
    REPLY = "reply"  # the partner's answer is expected
    PROMOTE = "promote"
    RETIRE = "retire"


class Step(Struct, frozen=True, gc=False):
    """A step, when it is expected, and why then. `at` is None if nothing says when."""

    action: Action
    at: datetime | None
    because: str


class AccountPlan(Struct, frozen=True, gc=False):
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


class _Planner(Struct, frozen=True, gc=False):
    account: Account
    renewal: Renewal
    maintenance: Maintenance
    now: datetime
    due: DueDate | None
    todo: Todo

    def planned(self) -> tuple[tuple[Step, ...], tuple[str, ...]]:
        """Return the steps that go on or come next, the overlap's first, and what a person should know before."""
        steps, ready = list(map(self._retirement, kept_beside(self.account))), self.now
        warnings = _snoozed_too_long(self.due)
        if not self.account.automatic_candidate:
            asked = self._asked()
            if asked is None:
                return tuple(steps), warnings
            begins, asking = asked
            lead = self.lead
            ready = begins + lead.time
            steps += (*asking, Step(Action.REPLY, ready, f"lead time {lead.text}"))
        promotion, in_time = self._promotion(max(ready, self.now))
        return (*steps, promotion), warnings if in_time else (*warnings, promotion.because)

    def _asked(self) -> tuple[datetime, tuple[Step, ...]] | None:
        """Return when the partner's people are asked, and the step that is still to be done; None if they are not."""
        account, now, request = self.account, self.now, self.account.open_request
        if request and not request.submissions:
            return now, (Step(Action.SEND, now, f"signing request {request.number} was never sent"),)
        if request:
            because = "the partner must revoke the certificate of a key that others know"
            again = (Step(Action.SEND, now, because),) if must_tell(account, request) else ()
            return request.submissions[0].at, again
        if not self.due or account.renewal is RenewalMode.DISABLED or account.refused_request:
            return None  # or a person corrects the refused request first, or enables renewal
        victim = account.compromised
        if victim and account.current and account.current.parts.key == victim.parts.key:
            return now, (Step(Action.RENEW, now, "others know the current key"),)
        begins = max(self.due.at, now)
        return begins, (Step(Action.RENEW, begins, self.due.because),)

    def since(self) -> datetime:
        """Return when the phase began; when the last set became current if nothing else says so."""
        account, due = self.account, self.due
        if self.todo.phase is Phase.NOT_DUE and account.current:
            return account.current.since  # most accounts, most of the time
        request = account.open_request
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

    def _promotion(self, ready: datetime) -> tuple[Step, bool]:
        """Return the promotion of what is ready then, and whether it waits for a window or needs none.

        Without a window, it happens on the last day, or after three quarters of a shorter lifetime.
        """
        due = self.due
        if due is None:
            return Step(Action.PROMOTE, ready, "nothing is current, so nobody waits for a window"), True
        if self.todo.phase is Phase.COMPROMISED:
            return Step(Action.PROMOTE, ready, "others know a key of the account: no window is waited for"), True
        if due.not_after <= ready:
            return Step(Action.PROMOTE, ready, f"{_end(due)}: no window is waited for"), True
        deadline = due.not_after - min(LAST_DAY, (due.not_after - due.not_before) / 4)
        opening = self.maintenance.opening(ready, deadline)
        if opening:
            window = f"in window {opening.window}" if opening.window else "as soon as the answer is there"
            return Step(Action.PROMOTE, opening.at, window + self._held_back(ready)), True
        thawed = self.maintenance.thawed(ready)
        if thawed < deadline:
            return Step(Action.PROMOTE, thawed, f"no window opens in time, and {_end(due)}: none is waited for"), False
        freeze = self.maintenance.freeze_at(ready)
        when = f"in freeze {freeze.name}" if freeze else "on the last day"
        return Step(Action.PROMOTE, max(ready, deadline), f"{when}: {_end(due)}"), False

    def _retirement(self, generation: Generation) -> Step:
        ready = max(overlap_end(self.account, generation, self.renewal), self.now)
        if self.account.compromise_of(generation.parts.key):
            return Step(Action.RETIRE, ready, f"generation {generation.number}: others know its key")
        opening = self.maintenance.opening(ready, ready + _HORIZON)
        because = f"generation {generation.number}, if no consumer holds it then"
        if opening is None:
            return Step(Action.RETIRE, None, f"{because}; no window opens within two years")
        window = f", in window {opening.window}" if opening.window else ""
        return Step(Action.RETIRE, opening.at, because + window + self._held_back(ready))

    def _held_back(self, ready: datetime) -> str:
        freeze = self.maintenance.freeze_at(ready)
        return f", after freeze {freeze.name}" if freeze else ""


def _snoozed_too_long(due: DueDate | None) -> tuple[str, ...]:
    if due is None or due.rule is not Rule.SNOOZE or due.at <= due.not_after - due.needed:
        return ()
    return (
        f"it is snoozed until {due.at:%F %TZ}: less than the {duration_text(due.needed)} before its end that "
        "the partner's people and our margin need",
    )


def _end(due: DueDate) -> str:
    return f"the certificate ends on {due.not_after:%F %TZ}"
