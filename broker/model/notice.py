"""Notices to people: the one event that an account is in, decided without asking anybody.

An event is an account, a step and a rung: `acme.request-4-overdue.14d`. The step is the place in the life cycle, the
rung how near the certificate's end is. Each event is announced once. It is recorded before anything is sent, with a
number that nobody can guess, so that a killed process repeats it under the same Message-ID and a bounce can be matched.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from broker.copies import replace

DAYS: Final = (60, 30, 14, 7, 3, 1)  # before the end
AFTER: Final = (1, 3)  # days after it; then every week
WEEK: Final = 7
KEPT: Final = 20  # notices of an account
BEGIN: Final = "begin"  # the rung before all others
_DAY: Final = timedelta(days=1)
_LATELY: Final = 3  # rungs of which the lifetime has so many


class Reminder(Struct, frozen=True):
    """The words for those at the partner, in their language."""

    subject: str
    body: str


class Notice(Struct, frozen=True):
    """An event that is announced. `waiting` are those who were not sent it yet; nothing in it is secret.

    An alert is sent alone and immediately; everything else waits for the recipient's daily digest.
    """

    event: str  # step and rung
    id: str  # random
    at: datetime
    alert: bool
    message: str
    hint: str
    expires_at: datetime | None = None
    uses: tuple[str, ...] = ()  # applications, and consumers that hold the certificate
    replaced_by: str = ""
    waiting: tuple[str, ...] = ()
    partner: tuple[str, ...] = ()  # those at the partner, who get `reminder` in place of the rest
    reminder: Reminder | None = None

    @property
    def step(self) -> str:
        """The step, which has one entry in a calendar."""
        return self.event.rpartition(".")[0]

    @property
    def rung(self) -> str:
        """How near the end was."""
        return self.event.rpartition(".")[2]

    def sent_to(self, recipient: str) -> "Notice":
        """Return the notice without `recipient` among those who wait."""
        return replace(self, waiting=tuple(name for name in self.waiting if name != recipient))


class PendingHook(Struct, frozen=True):
    """A hook that must still run. `id` is the same however often it is run."""

    event: str
    id: str
    step: str  # of the scheduler, and how it ended
    at: datetime
    generation: int = 0
    failures: int = 0


def rung(not_before: datetime, not_after: datetime, needed: timedelta, now: datetime) -> str:
    """Return the last rung that was reached: "begin", "60d" to "1d", "expired", "expired-1d" and so on.

    A rung counts if it lies in the last third of the lifetime, or in the time that renewal needs: a certificate of 30
    days has no use for a warning 60 days before its end.
    """
    left, lifetime = not_after - now, not_after - not_before
    if left <= timedelta():
        return _after(-left)
    counted = max(lifetime / _LATELY, needed)
    reached = [days for days in DAYS if left <= days * _DAY <= counted and days * _DAY < lifetime]
    return f"{min(reached)}d" if reached else BEGIN


def _after(since: timedelta) -> str:
    days = since // _DAY
    passed = max((n for n in (0, *AFTER, days // WEEK * WEEK) if n <= days), default=0)
    return f"expired-{passed}d" if passed else "expired"


def decided(known: tuple[Notice, ...], notice: Notice) -> tuple[Notice, ...]:
    """Return `known` with `notice`, unless its event was announced: then nothing changes.

    What still waits of another event is over, and not sent any more.
    """
    if any(other.event == notice.event for other in known):
        return current(known, notice.event)
    return (*current(known, notice.event), notice)[-KEPT:]


def current(known: Iterable[Notice], event: str) -> tuple[Notice, ...]:
    """Return notices with nobody waiting for another event than `event`."""
    return tuple(n if n.event == event or not n.waiting else replace(n, waiting=()) for n in known)


def delivered(known: Iterable[Notice], event: str, recipient: str) -> tuple[Notice, ...]:
    """Return notices after `recipient` was sent `event`."""
    return tuple(n.sent_to(recipient) if n.event == event else n for n in known)
