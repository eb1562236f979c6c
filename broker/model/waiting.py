"""What a consumer waits for: another generation than its own, or the end of what it may use."""

from enum import Enum

from msgspec import Struct


class Event(Enum):
    """The reason why a wait ended."""

    GENERATION = "generation"  # another generation is current
    REVOKED = "revoked"  # the lease, the right, or its account or application has ended
    SUSPENDED = "suspended"
    DRAIN = "drain"  # this replica ends
    TIMEOUT = "timeout"


class Ended(Struct, frozen=True):
    """The end of a wait, with the current generation if that is the reason."""

    event: Event
    generation: int | None = None
