"""The next action for an account: pure, from its document, its plan, its rotation record and the time."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from enum import Enum
from typing import Final

from msgspec import Struct

from broker.model.account import Account
from broker.model.channel import Channel
from broker.model.generation import Generation, PromotionMode, RenewalMode
from broker.model.life_cycle import Phase
from broker.model.plan import AccountPlan, Action
from broker.model.rotation_record import RotationRecord
from broker.model.situation import kept_beside
from broker.model.todo import last_answer, obstacles
from broker.model.verdict import Verdict

PROVEN_EVERY: Final = timedelta(days=7)  # a canary of a current set
_PROPAGATING: Final = frozenset({Verdict.HANDSHAKE, Verdict.CERTIFICATE_REJECTED})  # a new certificate: not yet known


class Do(Enum):
    """An action of the scheduler."""

    SETTLE = "settle"  # store evidence and destroy secrets that a killed command left
    DRAFT = "draft"
    SUBMIT = "submit"
    CANARY = "canary"  # of a candidate
    PROMOTE = "promote"
    RETIRE = "retire"
    PROVE = "prove"  # a canary of the current set, which nothing has changed


class Decision(Struct, frozen=True):
    """An action, and the number of the request or generation that it is for; 0 if it is for the account."""

    do: Do
    number: int = 0


def decide(account: Account, plan: AccountPlan, record: RotationRecord, now: datetime) -> Iterator[Decision]:
    """Yield the actions whose time has come and that no back-off holds, the first one first."""
    for wanted in _wanted(account, plan, now):
        if not record.waiting(wanted.do.value, account.head.number, now):
            yield wanted


def proven_at(account: Account) -> datetime | None:
    """Return when the partner last accepted the current set, None if there is none. Its promotion included a canary."""
    current = account.current
    if current is None:
        return None
    parts = account.parts_of(current)
    accepted = (t.at for t in account.tries if t.parts == parts and t.verdict == Verdict.OK.value)
    return max([current.since, *accepted])


def next_proof(account: Account) -> datetime | None:
    """Return when the current set is tried again; None if there is none.

    The begin of a day in UTC: the first sweep of a day reads every account, and those after it only what is due.
    """
    proven = proven_at(account)
    return datetime.combine((proven + PROVEN_EVERY).date(), time(), UTC) if proven else None


def is_idle_until(account: Account, plan: AccountPlan, record: RotationRecord) -> datetime | None:
    """Return until when nothing happens to an account by itself; None if something goes on."""
    left = account.outbox or account.doomed_keys or account.doomed_secrets
    if left or plan.phase is not Phase.NOT_DUE or not record.quiet:
        return None
    times = [step.at for step in plan.steps if step.at] + list(filter(None, [next_proof(account)]))
    return min(times, default=None)


def _wanted(account: Account, plan: AccountPlan, now: datetime) -> Iterator[Decision]:
    if account.outbox or account.doomed_keys or account.doomed_secrets:
        yield Decision(Do.SETTLE)
    if account.removed:
        return
    come = frozenset(step.action for step in plan.steps if step.at and step.at <= now)
    asked = any(obstacles(account, now))
    if account.automatic_candidate and not asked:
        yield from _candidate(account, account.automatic_candidate, Action.PROMOTE in come)
    if account.renewal is not RenewalMode.AUTO:
        return
    yield from _request(account, come)
    retirements = [step.at for step in plan.steps if step.action is Action.RETIRE]
    for generation, at in zip(kept_beside(account), retirements, strict=False):  # in one order
        if at and at <= now:
            yield Decision(Do.RETIRE, generation.number)
    proof = next_proof(account)
    if proof and proof <= now and not asked and account.current and plan.due and now < plan.due.not_after:
        yield from _proof(account, account.current)


def _candidate(account: Account, candidate: Generation, may_promote: bool) -> Iterator[Decision]:
    _, verdict = last_answer(account, candidate) or (None, None)
    if verdict and verdict.refuses and verdict not in _PROPAGATING:
        return  # only a person helps
    if may_promote and account.promotion is PromotionMode.AUTO:
        yield Decision(Do.PROMOTE, candidate.number)
    elif verdict is not Verdict.OK:
        yield Decision(Do.CANARY, candidate.number)


def _request(account: Account, come: frozenset[Action]) -> Iterator[Decision]:
    request = account.open_request
    by_machine = request and request.submissions and request.submissions[-1].via == Channel.VAULT_PKI.value
    if request and (Action.SEND in come or by_machine):  # a machine's answer was lost
        yield Decision(Do.SUBMIT, request.number)
    elif not request and Action.RENEW in come:
        yield Decision(Do.DRAFT)


def _proof(account: Account, current: Generation) -> Iterator[Decision]:
    _, verdict = last_answer(account, current) or (None, None)
    if not (verdict and verdict.refuses) or verdict in _PROPAGATING:
        yield Decision(Do.PROVE, current.number)
