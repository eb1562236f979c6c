"""When a certificate must be renewed, and which term decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.model.account import Account
from broker.model.duration import part_of

__all__ = ["DEFAULT_LEAD_TIME", "DueDate", "Term", "account_due", "due_date", "lead_time"]

DEFAULT_LEAD_TIME: Final = timedelta(days=21)  # until an account, or its profile, knows better
SHORTEST_LEAD_TIME: Final = timedelta(days=1)  # one answer within minutes is luck
LEARN_FROM: Final = 5  # answered submissions; people change, so older ones say little


@dataclass(frozen=True, slots=True)
class Term:
    """A moment, and why it counts."""

    at: datetime
    because: str


@dataclass(frozen=True, slots=True)
class DueDate:
    """All terms of the sum, and which one decided."""

    terms: tuple[Term, ...]

    @property
    def decided_by(self) -> Term:
        """The earliest."""
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
    """Return when renewal must start: time for people and to spare before the end, or a share of the lifetime.

    At the earliest, when the certificate begins: a profile may ask for more time than there is.
    """
    spare = min(safety + lead, not_after - not_before)
    people = Term(not_after - spare, f"{safety.days}d to spare and {lead.days}d for the partner's people")
    return DueDate((people, Term(not_before + (not_after - not_before) * share, f"{share:.0%} of its lifetime")))


def lead_time(account: Account, known: timedelta | None) -> timedelta:
    """Return how long the partner's people take: the longest of the last few waits, or three weeks where none is known.

    Never less than what the profile knows, nor than a day. Being early costs nothing; being late costs the API.
    """
    waited = [
        request.closed_at - request.submissions[0].at
        for request in account.requests
        if request.closed_at and request.submissions and request.closed and request.closed.value == "answered"
    ]
    if not waited:
        return known or DEFAULT_LEAD_TIME
    return max(*waited[-LEARN_FROM:], known or SHORTEST_LEAD_TIME, SHORTEST_LEAD_TIME)
