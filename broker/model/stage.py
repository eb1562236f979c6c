"""Where a generation stands, and every move it can make. docs/reference/stages.md prints this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

__all__ = ["MOVES", "Move", "Stage", "Transition"]


class Stage(Enum):
    """A generation's place in its life."""

    CANDIDATE = "candidate"
    CURRENT = "current"
    PREVIOUS = "previous"
    REJECTED = "rejected"
    RETIRED = "retired"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _MEANINGS[self]

    @property
    def deliverable(self) -> bool:
        """Whether consumers hold it in the normal course of things."""
        return self in (Stage.CURRENT, Stage.PREVIOUS)

    @property
    def living(self) -> bool:
        """Whether the secrets it refers to must be kept."""
        return self is not Stage.RETIRED


_MEANINGS: Final = {
    Stage.CANDIDATE: "verified, with the parts it changes; laid over the current set for its try",
    Stage.CURRENT: "what consumers are given",
    Stage.PREVIOUS: "was current, held by who was given it then: the way back",
    Stage.REJECTED: "never current, or overtaken",
    Stage.RETIRED: "its secrets are gone, unless a living generation shares them",
}


class Move(Enum):
    """What can be done to a generation. Each is one compare-and-set write."""

    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    REJECT = "reject"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a move may start, where it ends, and where it sends the generation that was current."""

    starts: frozenset[Stage]
    end: Stage
    displaced: Stage | None


MOVES: Final[Mapping[Move, Transition]] = MappingProxyType(
    {
        # From previous only if a roll-back displaced it (`Account.rolled_back`).
        Move.PROMOTE: Transition(frozenset({Stage.CANDIDATE, Stage.PREVIOUS}), Stage.CURRENT, displaced=Stage.PREVIOUS),
        # From previous only if not; from a candidate only if it brings a certificate back (`Account.reuses_certificate`).
        Move.ROLL_BACK: Transition(
            frozenset({Stage.PREVIOUS, Stage.CANDIDATE}), Stage.CURRENT, displaced=Stage.PREVIOUS
        ),
        Move.REJECT: Transition(frozenset({Stage.CANDIDATE}), Stage.REJECTED, displaced=None),
        Move.RETIRE: Transition(frozenset({Stage.PREVIOUS, Stage.REJECTED}), Stage.RETIRED, displaced=None),
    }
)
