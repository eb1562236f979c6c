"""The shape of the rules of the models: exit codes, steps, and how a command ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.chaos.account_model import State
from tests.chaos.linearizable import DONE, START, Operation, Phase

__all__ = ["CONFLICT", "OK", "REFUSED", "USAGE", "WAITING", "Rule", "Steps", "ends", "numbered"]

OK: Final = 0
USAGE: Final = 2
REFUSED: Final = 6
WAITING: Final = 7
CONFLICT: Final = 8
Steps = Iterator[tuple[State, Phase]]
Rule = Callable[[Operation, State, Phase], Steps]


def ends(fits: bool, state: State) -> Steps:
    """End in `state`, if that fits what the command said."""
    if fits:
        yield state, DONE


def numbered(rule: Rule) -> Rule:
    """Refuse what names a generation that is not there, before the rule looks at it."""

    def checked(op: Operation, state: State, phase: Phase) -> Steps:
        number = op.arguments.get("generation", 0)
        if phase == START and number > len(state.generations):
            return ends(op.failed(USAGE, f"generation {number}"), state)
        return rule(op, state, phase)

    return checked
