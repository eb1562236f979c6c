"""The clock. All code that needs the time takes a `Clock`, so that a test can move it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

Clock = Callable[[], datetime]  # always in UTC


def system_clock() -> datetime:
    """Return the machine's time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time (UTC) and the actor of a change, as its evidence shows them."""

    at: datetime
    by: str
