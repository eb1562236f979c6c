"""The rotation record of an account: what the scheduler and mail did. One document beside the account's.

Nothing in it is secret, and nothing in it decides what a partner or a consumer gets. If it is lost, a failed step is
tried earlier, and a notice may be given twice.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from broker.model.notice import Notice, PendingHook

SHORTEST: Final = timedelta(minutes=5)  # between two tries of a step that failed
LONGEST: Final = timedelta(days=1)
SHARE: Final = 8  # of the remaining validity: a last chance is never waited away


@dataclass(frozen=True, slots=True)
class BackOff:
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

    def holds(self, step: str, head: int, now: datetime) -> bool:
        """Return whether `step` must wait. A clock that was set back before the failure ends it."""
        return (self.step, self.head) == (step, head) and self.at <= now < self.until


@dataclass(frozen=True, slots=True)
class RotationRecord:
    """What the scheduler and mail did for an account. Every field is empty at first."""

    back_off: BackOff | None = None
    notices: tuple[Notice, ...] = ()
    hooks: tuple[PendingHook, ...] = ()

    def failed(self, failure: BackOff, *, valid_until: datetime | None) -> Self:
        """Return the record with `failure`, and with its `since`, `until` and `failures` counted on from the last.

        The wait is five minutes at first and a day at most, and never more than an eighth of what is left until
        `valid_until`, but five minutes even then.
        """
        last = self.back_off if self.back_off and self.back_off.step == failure.step else None
        failures = last.failures + 1 if last and last.head == failure.head else 1
        wait = min(SHORTEST * 2 ** min(failures - 1, 16), LONGEST)
        if valid_until:
            wait = max(SHORTEST, min(wait, (valid_until - failure.at) / SHARE))
        since = last.since if last else failure.at
        return replace(self, back_off=replace(failure, since=since, until=failure.at + wait, failures=failures))

    def succeeded(self) -> Self:
        """Return the record without a back-off."""
        return replace(self, back_off=None)
