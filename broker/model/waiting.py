"""What a consumer waits for: another generation than its own, or the end of what it may use."""

from dataclasses import dataclass
from enum import Enum


class Event(Enum):
    """The reason why a wait ended."""

    GENERATION = "generation"  # another generation is current
    REVOKED = "revoked"  # the lease, the right, or what it is for, is no more
    SUSPENDED = "suspended"
    DRAIN = "drain"  # this replica ends
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a wait, with the current generation if that is the reason."""

    event: Event
    generation: int | None = None
