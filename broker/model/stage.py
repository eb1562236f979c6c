"""The stages of a generation, and the table of moves between them, printed in docs/reference/stages.md."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from msgspec import Struct


class Stage(Enum):
    """The stage of a generation."""

    CANDIDATE = "candidate"
    CURRENT = "current"
    PREVIOUS = "previous"
    REJECTED = "rejected"
    RETIRED = "retired"

    @property
    def meaning(self) -> str:
        """One line of description."""
        return _MEANINGS[self]

    @property
    def deliverable(self) -> bool:
        """True if consumers may hold it."""
        return self in (Stage.CURRENT, Stage.PREVIOUS)

    @property
    def living(self) -> bool:
        """True if the secrets it refers to must be kept."""
        return self is not Stage.RETIRED


_MEANINGS: Final = {
    Stage.CANDIDATE: "verified, with the parts it changes; laid over the current set for its try",
    Stage.CURRENT: "given to consumers",
    Stage.PREVIOUS: "was current; consumers may still hold it; the target of a roll-back",
    Stage.REJECTED: "never current, or overtaken",
    Stage.RETIRED: "its secrets are gone, unless a living generation shares them",
}


class Move(Enum):
    """A change of stage, in one compare-and-set write."""

    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    REJECT = "reject"
    RETIRE = "retire"


class Transition(Struct, frozen=True):
    """The stages from which a move may start, the one where it ends, and the new one of the displaced generation."""

    starts: frozenset[Stage]
    end: Stage
    displaced: Stage | None = None


_BEFORE: Final = frozenset({Stage.CANDIDATE, Stage.PREVIOUS})
MOVES: Final[Mapping[Move, Transition]] = {
    # From previous only if a roll-back displaced it (`Account.rolled_back`).
    Move.PROMOTE: Transition(_BEFORE, Stage.CURRENT, displaced=Stage.PREVIOUS),
    # From previous only if not; from a candidate only if `Account.reuses_certificate`.
    Move.ROLL_BACK: Transition(_BEFORE, Stage.CURRENT, displaced=Stage.PREVIOUS),
    Move.REJECT: Transition(frozenset({Stage.CANDIDATE}), Stage.REJECTED),
    Move.RETIRE: Transition(frozenset({Stage.PREVIOUS, Stage.REJECTED}), Stage.RETIRED),
}
