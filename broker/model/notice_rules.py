"""Rules of notices: the event that an account is in, whether a person must act on it, and who is notified."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.model import proposal
from broker.model.account import Account
from broker.model.life_cycle import Phase, Who
from broker.model.notice import BEGIN, Notice, rung
from broker.model.plan import AccountPlan
from broker.model.recipient import WEBHOOK, Recipients, partner_of, team_of
from broker.model.rotation_record import BackOff, RotationRecord

FAILURES: Final = 3  # of an automatic step in a row, and
PERSISTING: Final = timedelta(hours=6)  # since the first: then a person should know
_PATIENT: Final = ("canary", "prove", "retire")  # steps that wait for the partner's server, or for consumers
# Phases without a notice before a rung is reached
_QUIET: Final = frozenset({Phase.NOT_DUE, Phase.OVERLAP, Phase.NEW, Phase.SUSPENDED, Phase.PAUSED})
_URGENT: Final = frozenset({Phase.COMPROMISED, Phase.EXPIRED, Phase.STOPPED, Phase.OVERDUE, Phase.REFUSED})
_LATE: Final = ("3d", "1d")  # then also what should happen by itself is a person's business
_UNDER_WAY: Final = frozenset({Phase.RETIRING, Phase.PASSWORD})  # ours, and in no hurry
_MOST: Final = 12  # names of consumers in a notice


class Happening(Struct, frozen=True):
    """An event, and what to do about it."""

    event: str
    must_act: bool
    message: str
    hint: str
    late: bool = False  # the partner's people have taken longer than their lead time


class Channels(Struct, frozen=True):
    """The channels that are configured."""

    mail: bool
    webhook: bool


def happening(plan: AccountPlan, account: Account, record: RotationRecord, now: datetime) -> Happening | None:
    """Return the event that an account is in, None if there is nothing to say.

    What arrived for it comes first, then a step that keeps failing, then its place in the life cycle.
    """
    near = _rung(plan, now)
    for arrived in proposal.waiting(record.proposals, account)[:1]:
        message, hint = proposal.next_step(account, arrived)
        return Happening(f"reply-{arrived.id[:16]}.{near}", True, message, hint)
    failing = _failing(account, record, near, now)
    if failing:
        message = f"{failing.step} has failed {failing.failures} times: {failing.message}"
        event = f"failing-{failing.step}-{failing.since:%Y%m%d%H%M}.{near}"
        return Happening(event, failing.step not in _PATIENT, message, failing.hint or f"broker status {account.name}")
    if _is_quiet(plan, now):
        return None
    ours = plan.who is Who.US and not plan.automatic and plan.phase not in _UNDER_WAY
    message, hint = plan.message, plan.hint
    if plan.due and plan.phase in (Phase.NOT_DUE, Phase.OVERLAP):
        message = f"its certificate ends on {plan.due.not_after:%F}; renewal is due on {plan.due.at:%F}"
        hint = f"broker rotation status {account.name}"
    if plan.phase is Phase.COMPROMISED and account.compromise:
        near = f"day-{(now - account.compromise.at).days}"  # a notice each day
    must_act = ours or plan.phase in _URGENT or _is_late(near)
    late = _partner_is_late(plan, account, now)
    return Happening(f"{plan.phase.value}-{_place(plan, account)}.{near}", must_act, message, hint, late)


def noticed(happened: Happening, account: Account, held_by: Iterable[str], id_: str, now: datetime) -> Notice:
    """Return the notice of an event, with what uses the certificate and what replaces it; it has no recipient yet."""
    current = account.current
    return Notice(
        happened.event,
        id_,
        now,
        happened.must_act,
        happened.message,
        happened.hint,
        account.certificate(current.parts.certificate).not_after if current else None,
        _uses(account, held_by),
        _replaced_by(account),
    )


def addressed(notice: Notice, account: Account, recipients: Recipients, channels: Channels, *, late: bool) -> Notice:
    """Return `notice` with its recipients: the team, the webhook, and the partner's contact if a mailed one is late.

    A request that a person sent in another way is that person's to ask about.
    """
    team = team_of(account.contacts, recipients, alert=notice.alert) if channels.mail else ()
    request = account.open_request
    mailed = request and any(s.via == "smtp" for s in request.submissions)
    reminded = channels.mail and mailed and late
    partner = tuple(to for to in partner_of(account.contacts, recipients) if reminded and to not in team)
    return replace(notice, waiting=(*team, *partner, *((WEBHOOK,) if channels.webhook else ())), partner=partner)


def _is_quiet(plan: AccountPlan, now: datetime) -> bool:
    """Return whether nothing about an account is to be said, whatever its documents hold."""
    begun = plan.phase not in _QUIET and not (plan.automatic and plan.phase in (Phase.DUE, Phase.DRAFTED))
    return not begun and _rung(plan, now) == BEGIN


def _partner_is_late(plan: AccountPlan, account: Account, now: datetime) -> bool:
    """Return whether the answer is overdue, also if the certificate has ended meanwhile."""
    request = account.open_request
    if plan.phase is not Phase.EXPIRED or plan.who is not Who.PARTNER or not request or not plan.due:
        return plan.phase is Phase.OVERDUE
    return now - request.submissions[0].at > plan.due.lead.time


def _failing(account: Account, record: RotationRecord, near: str, now: datetime) -> BackOff | None:
    """Return the step that keeps failing. One that a person has acted on since does not count."""
    failed = (b for b in record.back_offs if b.head == account.head.number and b.failures >= FAILURES)
    worst = max(failed, key=lambda back_off: back_off.failures, default=None)
    return worst if worst and (_is_late(near) or now - worst.since >= PERSISTING) else None


def _is_late(near: str) -> bool:
    return near in _LATE or near.startswith("expired")


def _rung(plan: AccountPlan, now: datetime) -> str:
    due = plan.due
    return rung(due.not_before, due.not_after, due.needed, now) if due else BEGIN


def _place(plan: AccountPlan, account: Account) -> str:
    """Return what tells this step from the same phase at another time."""
    if account.breaker and plan.phase is Phase.STOPPED:
        return f"b{account.breaker.at:%Y%m%d%H%M}"
    if plan.phase is Phase.STOPPED and account.tries:
        return f"t{account.tries[-1].number}"
    if account.automatic_candidate:
        return f"g{account.automatic_candidate.number}"
    if plan.phase is Phase.REFUSED and account.refused_request:
        return f"r{account.refused_request.number}"
    request = account.open_request
    if request:
        return f"r{request.number}{'s' if request.submissions else ''}"
    return f"g{account.current.number if account.current else 0}"


def _uses(account: Account, held_by: Iterable[str]) -> tuple[str, ...]:
    applications = sorted(f"{account.name}/{a.name}" for a in account.applications)
    holders = sorted(set(held_by))
    more = (f"and {len(holders) - _MOST} more",) if len(holders) > _MOST else ()
    return (*applications[:_MOST], *holders[:_MOST], *more)


def _replaced_by(account: Account) -> str:
    if account.automatic_candidate:
        return f"generation {account.automatic_candidate.number}, once it is promoted"
    request = account.open_request
    if request:
        return f"the certificate for signing request {request.number}, which is not there yet"
    return "nothing yet"
