"""The date on which the renewal of a certificate must start, with every term of it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from msgspec import Struct

from broker.model.account import Account
from broker.model.duration import counted, duration_text, part_of
from broker.model.generation import Closed, Snooze

DEFAULT_LEAD_TIME: Final = timedelta(days=21)  # if neither an answered request nor the profile has one
SHORTEST_LEAD_TIME: Final = timedelta(days=1)  # one answer within minutes is an exception
LEARN_FROM: Final = 5  # answered submissions; older ones say little


class Renewal(Struct, frozen=True):
    """Renewal times. The first two are the broker's margins; the others the partner's, None while unknown."""

    safety: timedelta = timedelta(days=14)  # before not_after
    share: float = 2 / 3  # of the lifetime
    lifetime: timedelta | None = None
    overlap: timedelta | None = None  # how long the old certificate works after the new one exists
    lead_time: timedelta | None = None  # from sending the CSR to having the reply


class LeadTime(Struct, frozen=True, gc=False):
    """How long the partner takes to answer; `text` has the requests that it was learned from too."""

    time: timedelta
    text: str


_UNKNOWN: Final = LeadTime(
    DEFAULT_LEAD_TIME, f"{duration_text(DEFAULT_LEAD_TIME)}: the default, until a request was answered"
)


def lead_time(account: Account, known: timedelta | None) -> LeadTime:
    """Return how long the partner takes to answer: the longest of the last few waits, or three weeks if there is none.

    Never less than `known`, the profile's, nor than a day: starting early costs nothing, late an outage.
    """
    waits = [
        (request.number, request.closed_at - request.submissions[0].at)
        for request in account.requests
        if request.submissions and request.closed_at and request.closed is Closed.ANSWERED
    ][-LEARN_FROM:]
    if not waits:
        return LeadTime(known, f"{duration_text(known)}: as the profile says") if known else _UNKNOWN
    answers = ", ".join(f"request {number} took {duration_text(waited)}" for number, waited in waits)
    longest, least = max(waited for _, waited in waits), max(known or SHORTEST_LEAD_TIME, SHORTEST_LEAD_TIME)
    if longest >= least:
        because = f"the longest of {counted(len(waits), 'answer')}: {answers}"
    elif least == known:
        because = f"as the profile says; {answers}"
    else:
        because = f"the least that is counted on; {answers}"
    time = max(longest, least)
    return LeadTime(time, f"{duration_text(time)}: {because}")


class Rule(Enum):
    """The term that decides when renewal starts."""

    MARGIN = "margin"  # safety and lead time before the end
    SHARE = "share"  # of the lifetime
    SET = "renew-before"  # of the account
    SNOOZE = "snooze"  # a person put it off


class Term(Struct, frozen=True):
    """One term of a due date: when renewal would start by it, None if it only adds to another, and why."""

    name: str
    at: datetime | None
    because: str
    decides: bool = False


class DueDate(Struct, frozen=True, gc=False):
    """When renewal must start, and the terms that it follows from."""

    at: datetime
    rule: Rule
    not_before: datetime
    not_after: datetime
    lead: LeadTime
    renewal: Renewal
    renew_before: str = ""
    snoozed: Snooze | None = None

    @property
    def because(self) -> str:
        """The term that decides, for people."""
        return self._because(self.rule)

    @property
    def end(self) -> str:
        """The end of the certificate, for people."""
        return f"{self.not_after.isoformat(' ', 'seconds')[:19]}Z"  # in a fifth of the time of strftime

    @property
    def needed(self) -> timedelta:
        """The time before the end that the partner's people and our margin need, at most the lifetime."""
        return min(self.renewal.safety + self.lead.time, self.not_after - self.not_before)

    def terms(self) -> Iterator[Term]:
        """Yield every term, whether it decides or not."""
        lifetime = self.not_after - self.not_before
        yield Term("lead-time", None, self.lead.text)
        yield Term("safety", None, f"{duration_text(self.renewal.safety)} to spare before its end")
        yield self._term(Rule.MARGIN, self.not_after - self.needed)
        yield self._term(Rule.SHARE, self.not_before + lifetime * self.renewal.share)
        if self.renew_before:
            yield self._term(Rule.SET, self.not_after - min(part_of(lifetime, self.renew_before), lifetime))
        if self.snoozed:
            yield self._term(Rule.SNOOZE, self.snoozed.until)

    def _term(self, rule: Rule, at: datetime) -> Term:
        return Term(rule.value, at, self._because(rule), self.rule is rule)

    def _because(self, rule: Rule) -> str:
        match rule:
            case Rule.SHARE:
                return f"{self.renewal.share:.0%} of its lifetime"
            case Rule.MARGIN:
                return self._people()
            case Rule.SET:
                return f"{self.renew_before} before its end, by --renew-before"
            case Rule.SNOOZE:
                return f"snoozed until {self.snoozed.until:%F %TZ}: {self.snoozed.reason}" if self.snoozed else ""

    def _people(self) -> str:
        lifetime, safety, lead = self.not_after - self.not_before, self.renewal.safety, self.lead.time
        people = f"{duration_text(safety)} to spare and {duration_text(lead)} for the partner's people"
        return people + (f", more than its lifetime of {duration_text(lifetime)}" if safety + lead > lifetime else "")


def account_due(account: Account, renewal: Renewal, renew_before: str = "") -> DueDate | None:
    """Return when the renewal of the current certificate must start, None if there is none.

    The earlier of safety and lead time before its end, and a share of its lifetime; or as set for the
    account, or by `renew_before` in place of that. Never before it begins, even if the profile asks for more time than
    its lifetime. A snooze puts it off, but no further than the certificate's end.
    """
    current = account.current
    if current is None:
        return None
    certificate = account.certificate(current.parts.certificate)
    start, end = certificate.not_before, certificate.not_after
    lead, set_, lifetime = lead_time(account, renewal.lead_time), renew_before or account.renew_before, end - start
    margin, share = end - min(renewal.safety + lead.time, lifetime), start + lifetime * renewal.share
    if set_:
        at, rule = end - min(part_of(lifetime, set_), lifetime), Rule.SET
    elif share < margin:
        at, rule = share, Rule.SHARE
    else:
        at, rule = margin, Rule.MARGIN
    snoozed = account.snoozed
    if snoozed and at < snoozed.until < end:
        at, rule = snoozed.until, Rule.SNOOZE
    return DueDate(at, rule, start, end, lead, renewal, set_, snoozed)
