"""The date on which the renewal of a certificate must start."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.model.account import Account
from broker.model.duration import part_of
from broker.model.generation import Closed

DEFAULT_LEAD_TIME: Final = timedelta(days=21)  # if neither an answered request nor the profile has one
SHORTEST_LEAD_TIME: Final = timedelta(days=1)  # one answer within minutes is an exception
LEARN_FROM: Final = 5  # answered submissions; older ones say little


@dataclass(frozen=True, slots=True)
class DueDate:
    """When renewal must start, and why."""

    at: datetime
    because: str


def account_due(account: Account, *, lead: timedelta, safety: timedelta, share: float) -> DueDate | None:
    """Return when the renewal of the current certificate must start, None if there is none.

    `safety` and `lead` before its end or after a share of its lifetime, whichever is earlier; or as set for the
    account. Never before it begins, even if the profile asks for more time than its lifetime.
    """
    if account.current is None:
        return None
    certificate = account.certificate(account.current.parts.certificate)
    start, end = certificate.not_before, certificate.not_after
    if account.renew_before:
        before = min(part_of(end - start, account.renew_before), end - start)
        return DueDate(end - before, f"{account.renew_before} before its end, as set for the account")
    people = f"{safety.days}d to spare and {lead.days}d for the partner's people"
    return min(
        DueDate(end - min(safety + lead, end - start), people),
        DueDate(start + (end - start) * share, f"{share:.0%} of its lifetime"),
        key=lambda due: due.at,
    )


def lead_time(account: Account, known: timedelta | None) -> timedelta:
    """Return how long the partner takes to answer: the longest of the last few waits, or three weeks if there is none.

    Never less than `known`, the profile's, nor than a day: starting early costs nothing, late an outage.
    """
    waited = [
        request.closed_at - request.submissions[0].at
        for request in account.requests
        if request.closed_at and request.submissions and request.closed is Closed.ANSWERED
    ]
    if not waited:
        return known or DEFAULT_LEAD_TIME
    return max(*waited[-LEARN_FROM:], known or SHORTEST_LEAD_TIME, SHORTEST_LEAD_TIME)
