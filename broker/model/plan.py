"""The plan of an account's rotation: what is done when, by whom and why. Pure: no vault, no clock of its own."""

from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from msgspec import Struct

from broker.model.account import Account
from broker.model.due import DueDate, Renewal, Rule
from broker.model.duration import duration_text
from broker.model.generation import Generation, PromotionMode, RenewalMode
from broker.model.life_cycle import Phase, Who
from broker.model.maintenance import Freeze, Maintenance
from broker.model.names import AccountName
from broker.model.situation import Situation, situation
from broker.model.todo import Todo, forked_todo, must_tell, next_todo, overlap_end

LAST_DAY: Final = timedelta(days=1)  # before the end: a promotion that found no window happens by then
_FOUR_DAYS: Final = 4 * LAST_DAY
_HORIZON: Final = timedelta(days=2 * 366)  # no window for a retirement is looked for beyond it
_NONE: Final = Maintenance()


# gc=False, here and in `due`, `situation` and `todo`: nothing in a plan refers back to it, and a sweep makes many plans


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
    since: datetime | None = None  # when the phase began; when the last set became current if nothing else says so


def account_plan(
    account: Account, renewal: Renewal, now: datetime, maintenance: Maintenance = _NONE, *, forked: bool = False
) -> AccountPlan:
    """Return the plan of `account`, by the renewal times of its profile."""
    seen = situation(account, renewal, now)
    todo = forked_todo(account) if forked else next_todo(seen)
    steps, warnings = _planned(seen, todo.phase, maintenance)
    return AccountPlan(
        account.name,
        todo.phase,
        todo.who,
        _automatic(account, todo),
        todo.message,
        todo.hint,
        seen.due,
        steps,
        warnings,
        todo.since or (seen.current.since if seen.current else account.created_at),
    )


def _automatic(account: Account, todo: Todo) -> bool:
    """Return whether the scheduler takes the next step by itself."""
    by = todo.phase.row.automatic
    if by == "promotion":
        return account.promotion is PromotionMode.AUTO
    return by == "renewal" and account.renewal is RenewalMode.AUTO


def _planned(seen: Situation, phase: Phase, maintenance: Maintenance) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Return the steps that go on or come next, the overlap's first, and what a person should know before."""
    steps = [_retirement(seen, generation, maintenance) for generation in seen.kept]
    warnings, ready = _snoozed_too_long(seen.due), seen.now
    if not seen.candidate:
        asking, begins = _asking(seen)
        if begins is None:
            return tuple(steps), warnings
        if asking:
            steps.append(asking)
        lead = seen.lead
        ready = begins + lead.time
        steps.append(Step(Action.REPLY, ready, f"lead time {lead.text}"))
    promotion, in_time = _promotion(seen.due, phase, max(ready, seen.now), maintenance)
    steps.append(promotion)
    return tuple(steps), warnings if in_time else (*warnings, f"promotion: {promotion.because}")


def _asking(seen: Situation) -> tuple[Step | None, datetime | None]:
    """Return the step by which the partner's people are asked, if it is still to be done, and when they are."""
    account, now, due, request, victim = seen.account, seen.now, seen.due, seen.request, seen.compromised
    if request and not request.submissions:
        return Step(Action.SEND, now, f"signing request {request.number} was never sent"), now
    if request:
        because = "the partner must revoke the certificate of a key that others know"
        again = Step(Action.SEND, now, because) if must_tell(account, request) else None
        return again, request.submissions[0].at
    if not due or account.renewal is RenewalMode.DISABLED or seen.refused:
        return None, None  # or a person corrects the refused request first, or enables renewal
    if victim and seen.current and seen.current.parts.key == victim.parts.key:
        return Step(Action.RENEW, now, "others know the current key"), now
    begins = max(due.at, now)
    return Step(Action.RENEW, begins, due.because), begins


def _promotion(due: DueDate | None, phase: Phase, ready: datetime, maintenance: Maintenance) -> tuple[Step, bool]:
    """Return the promotion of what is ready then, and whether it waits for a window or needs none.

    Without a window, it happens on the last day, or after three quarters of a shorter lifetime.
    """
    if due is None:
        return Step(Action.PROMOTE, ready, "nothing is current, so nobody waits for a window"), True
    if phase is Phase.COMPROMISED:
        return Step(Action.PROMOTE, ready, "others know a key of the account: no window is waited for"), True
    if due.not_after <= ready:
        return Step(Action.PROMOTE, ready, f"the certificate ends on {due.end}: no window is waited for"), True
    lifetime = due.not_after - due.not_before
    deadline = due.not_after - (LAST_DAY if lifetime > _FOUR_DAYS else lifetime / 4)
    freeze, opening = maintenance.freeze_at(ready), maintenance.opening(ready, deadline)
    if opening:
        window = f"in window {opening.window}" if opening.window else "as soon as the answer is there"
        return Step(Action.PROMOTE, opening.at, window + _held_back(freeze)), True
    thawed = maintenance.thawed(ready)
    if thawed < deadline:
        because = f"no window opens in time, and the certificate ends on {due.end}: none is waited for"
        return Step(Action.PROMOTE, thawed, because), False
    when = f"in freeze {freeze.name}" if freeze else "on the last day"
    return Step(Action.PROMOTE, max(ready, deadline), f"{when}: the certificate ends on {due.end}"), False


def _retirement(seen: Situation, generation: Generation, maintenance: Maintenance) -> Step:
    ready = max(overlap_end(seen.account, generation, seen.renewal), seen.now)
    if seen.account.compromise_of(generation.parts.key):
        return Step(Action.RETIRE, ready, f"generation {generation.number}: others know its key")
    opening = maintenance.opening(ready, ready + _HORIZON)
    because = f"generation {generation.number}, if no consumer holds it then"
    if opening is None:
        return Step(Action.RETIRE, None, f"{because}; no window opens within two years")
    window = f", in window {opening.window}" if opening.window else ""
    return Step(Action.RETIRE, opening.at, because + window + _held_back(maintenance.freeze_at(ready)))


def _held_back(freeze: Freeze | None) -> str:
    return f", after freeze {freeze.name}" if freeze else ""


def _snoozed_too_long(due: DueDate | None) -> tuple[str, ...]:
    if due is None or not due.snoozed or due.rule is not Rule.SNOOZE or due.at <= due.not_after - due.needed:
        return ()
    return (
        f"it is snoozed until {due.at:%F %TZ}: less than the {duration_text(due.needed)} before its end that "
        "the partner's people and our margin need",
    )
