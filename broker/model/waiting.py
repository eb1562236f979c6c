"""What a consumer waits for: another generation than its own, or the end of what it may use."""

from dataclasses import dataclass
from enum import Enum

from broker.model.account import Account


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


def ended_by(account: Account, application: str, generation: int) -> Ended | None:
    """Return the end of a wait for another generation than `generation`, None if it goes on."""
    if account.removed or application not in {a.name for a in account.applications}:
        return Ended(Event.REVOKED)
    if account.suspended:
        return Ended(Event.SUSPENDED)
    current = account.current
    if current and current.number != generation:
        return Ended(Event.GENERATION, current.number)
    return None
