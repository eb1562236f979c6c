"""The clock. All code that needs the time takes a `Clock`, so that a test can move it."""

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

Clock = Callable[[], datetime]  # always in UTC


def system_clock() -> datetime:
    """Return the machine's time in UTC."""
    return datetime.now(UTC)


class Stamp(Struct, frozen=True):
    """The time (UTC) and the actor of a change, as its evidence shows them."""

    at: datetime
    by: str
