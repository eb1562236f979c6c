"""The timeline of an account: what happened and what is planned. No contact, no reason of a person, nothing secret."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from msgspec import Struct

from broker.model.account import Account
from broker.model.generation import Closed, SigningRequest
from broker.model.plan import AccountPlan, Action
from broker.model.stage import Stage

KEPT: Final = 40  # of the past
_CLOSED: Final = {
    Closed.ANSWERED: "was answered",
    Closed.REJECTED: "was refused by the partner",
    Closed.SUPERSEDED: "was replaced by another",
    Closed.CANCELLED: "was cancelled",
}
_MOVED: Final = {
    Stage.CANDIDATE: "was made of a reply or a change",
    Stage.CURRENT: "became current",
    Stage.PREVIOUS: "was displaced",
    Stage.REJECTED: "was rejected",
    Stage.RETIRED: "was retired, and its secrets destroyed",
}
_PLANNED: Final = {
    Action.RENEW: "renewal starts",
    Action.SEND: "the signing request is to be sent",
    Action.REPLY: "the partner's answer is expected",
    Action.PROMOTE: "promotion",
    Action.RETIRE: "an old generation is retired, unless it is held",
}


class Moment(Struct, frozen=True):
    """A place on the timeline; `planned` if it did not happen yet."""

    at: datetime
    message: str
    planned: bool = False


def timeline(account: Account, plan: AccountPlan, now: datetime) -> tuple[Moment, ...]:
    """Return the moments of the account's document and of its plan, in order."""
    past = sorted((m for m in _past(account) if m.at <= now), key=lambda moment: moment.at)
    coming = [Moment(step.at, _PLANNED[step.action], True) for step in plan.steps if step.at]
    if plan.due and plan.due.not_after > now:
        coming.append(Moment(plan.due.not_after, "the current certificate ends", True))
    return (*past[-KEPT:], *sorted(coming, key=lambda moment: moment.at))


def _past(account: Account) -> Iterator[Moment]:
    yield Moment(account.created_at, "the account was added")
    for request in account.requests:
        yield from _of_request(request)
    for generation in account.generations:
        yield Moment(generation.since, f"generation {generation.number} {_MOVED[generation.stage]}")
    for made in account.tries:
        answer = made.verdict or "no answer was stored"
        yield Moment(made.at, f"canary {made.number} of generation {made.generation}: {answer}")
    if account.snoozed:
        yield Moment(account.snoozed.at, f"renewal was put off until {account.snoozed.until:%F %TZ}")
    if account.suspended:
        yield Moment(account.suspended.at, "the account was suspended")
    if account.current:
        end = account.certificate(account.current.parts.certificate).not_after
        yield Moment(end, "the current certificate ended")


def _of_request(request: SigningRequest) -> Iterator[Moment]:
    name = f"signing request {request.number}"
    yield Moment(request.drafted_at, f"{name} was made")
    for submission in request.submissions:
        yield Moment(submission.at, f"{name} was sent")
    if request.closed and request.closed_at:
        yield Moment(request.closed_at, f"{name} {_CLOSED[request.closed]}")
    if request.compromised:
        yield Moment(request.compromised.at, f"the key of {name} was reported as compromised")
