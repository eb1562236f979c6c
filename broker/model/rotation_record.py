"""The rotation record of an account: what the scheduler and mail did. One document beside the account's.

Nothing in it is secret, and nothing in it decides what a partner or a consumer gets. If it is lost, a failed step is
tried earlier, and a notice may be given twice.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Self

from msgspec import Struct, field

from broker.copies import replace
from broker.model.notice import Notice, PendingHook
from broker.model.proposal import Proposal

SHORTEST: Final = timedelta(minutes=5)  # between two tries of a step that failed
LONGEST: Final = timedelta(days=1)
SHARE: Final = 8  # of the remaining validity: a last chance is never waited away


class BackOff(Struct, frozen=True):
    """A step that failed, and when it is tried again: twice as long after each failure.

    `head` is the number of the account's last entry of evidence after the failure. A later entry means that a person
    did something since, which ends the back-off.
    """

    step: str
    since: datetime  # of the first failure
    at: datetime  # of the last failure
    until: datetime
    failures: int
    head: int
    message: str
    hint: str = ""
    waits: bool = False  # for somebody, which is no failure

    def holds(self, step: str, head: int, now: datetime) -> bool:
        """Return whether `step` must wait. A clock that was set back before the failure ends it."""
        return (self.step, self.head) == (step, head) and self.at <= now < self.until


class OutgoingMail(Struct, frozen=True):
    """A mail that is fixed before it is sent: sent again, it has the same bytes."""

    request: int  # number of the signing request in it
    message_id: str
    at: datetime
    to: tuple[str, ...]
    content: str  # RFC 5322, or 6532 if an address has letters that are not ASCII


class RotationRecord(Struct, frozen=True):
    """What the scheduler and mail did for an account. Every field is empty at first."""

    back_offs: tuple[BackOff, ...] = ()  # one a step at most
    proposals: tuple[Proposal, ...] = ()  # what arrived by mail or in the drop folder
    sent: tuple[OutgoingMail, ...] = ()  # on its way: one at most, for the open request
    notices: tuple[Notice, ...] = ()
    hooks: tuple[PendingHook, ...] = ()
    hooked: Mapping[str, int] = field(default_factory=dict)  # the number of the last event whose hook was recorded

    @property
    def quiet(self) -> bool:
        """Whether nothing in it waits for the next sweep."""
        return not (self.back_offs or self.hooks or any(notice.waiting for notice in self.notices))

    def waiting(self, step: str, head: int, now: datetime) -> BackOff | None:
        """Return the back-off that `step` must wait for now, None if it may run."""
        return next((back_off for back_off in self.back_offs if back_off.holds(step, head, now)), None)

    def failed(self, failure: BackOff, *, before: int, valid_until: datetime | None) -> Self:
        """Return the record with `failure`, and with its `since`, `until` and `failures` counted on from the last.

        `before` is the number of the account's last entry of evidence before the action: a failed canary adds some.

        The wait is five minutes at first and a day at most, and never more than an eighth of what is left until
        `valid_until`, but five minutes even then.
        """
        last = next((back_off for back_off in self.back_offs if back_off.step == failure.step), None)
        failures = last.failures + 1 if last and last.head == before else 1
        wait = min(SHORTEST * 2 ** min(failures - 1, 16), LONGEST)
        if valid_until:
            wait = max(SHORTEST, min(wait, (valid_until - failure.at) / SHARE))
        since = last.since if last else failure.at
        counted = replace(failure, since=since, until=failure.at + wait, failures=failures)
        others = self.succeeded(failure.step, before=before, after=failure.head).back_offs
        return replace(self, back_offs=(*others, counted))

    def succeeded(self, step: str, *, before: int, after: int) -> Self:
        """Return the record without the back-off of `step`. The others hold on: the entries are the scheduler's own.

        `before` and `after` are the numbers of the account's last entry of evidence.
        """
        others = (back_off for back_off in self.back_offs if back_off.step != step)
        return replace(self, back_offs=tuple(replace(b, head=after) if b.head == before else b for b in others))
