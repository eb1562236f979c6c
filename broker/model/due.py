"""The date on which the renewal of a certificate must start."""

from __future__ import annotations

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
class Term:
    """A time, and the reason for it."""

    at: datetime
    because: str


@dataclass(frozen=True, slots=True)
class DueDate:
    """The earliest of `terms`: when renewal must start."""

    terms: tuple[Term, ...]

    @property
    def decided_by(self) -> Term:
        """The earliest term."""
        return min(self.terms, key=lambda term: term.at)

    @property
    def at(self) -> datetime:
        """When renewal must start."""
        return self.decided_by.at


def account_due(account: Account, *, lead: timedelta, safety: timedelta, share: float) -> DueDate | None:
    """Return when the renewal of the current certificate must start, None if there is none."""
    if account.current is None:
        return None
    certificate = account.certificate(account.current.parts.certificate)
    if account.renew_before:
        lifetime = certificate.not_after - certificate.not_before
        at = certificate.not_after - min(part_of(lifetime, account.renew_before), lifetime)
        return DueDate((Term(at, f"{account.renew_before} before its end, as set for the account"),))
    return due_date(certificate.not_before, certificate.not_after, lead=lead, safety=safety, share=share)


def due_date(not_before: datetime, not_after: datetime, *, lead: timedelta, safety: timedelta, share: float) -> DueDate:
    """Return when renewal must start: `safety` and `lead` before the end, or after a share of the lifetime.

    Never before the certificate begins, even if its profile asks for more time than its lifetime.
    """
    spare = min(safety + lead, not_after - not_before)
    people = Term(not_after - spare, f"{safety.days}d to spare and {lead.days}d for the partner's people")
    return DueDate((people, Term(not_before + (not_after - not_before) * share, f"{share:.0%} of its lifetime")))


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
