"""Two concurrent commands end as if one came after the other, or as if the refused one had not come.

The second command runs as a whole just before each write of the first: whatever the first has read is then stale.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from functools import partial

import pytest

from broker.errors import ConflictError, RefusedError, UnknownNameError, WaitingError
from tests.rotation.life_cycle import Commands, midway, outcome
from tests.rotation.simulation import Simulation
from tests.support.depth import sampled

pytestmark = pytest.mark.slow

Command = Callable[[Commands], object]

COMMANDS: dict[str, Command] = {
    "add an application": lambda c: c.application("billing"),
    "set a password": lambda c: c.password("pw-3"),
    "set another password": lambda c: c.password("pw-4"),
    "set a trust": lambda c: c.trust("server-ca-2"),
    "draft": lambda c: c.draft(),
    "submit": lambda c: c.submit(),
    "import": lambda c: c.answer(3),
    "cancel": lambda c: c.close(3),
    "try the candidate": lambda c: c.canary(3),
    "try the current set": lambda c: c.canary(2),
    "promote": lambda c: c.promote(3),
    "reject": lambda c: c.reject(3),
    "roll back": lambda c: c.roll_back(1),
    "retire": lambda c: c.retire(1),
    "settle": lambda c: c.settle(),
}


def refused(sim: Simulation, name: str) -> bool:
    """Give a command; return whether it was refused. Any other failure is a fault of ours."""
    try:
        COMMANDS[name](Commands(sim))
    except (ConflictError, RefusedError, UnknownNameError, WaitingError):
        return True
    return False


@functools.cache
def in_turn(begun: str, *names: str) -> dict[str, object]:
    """Return what the commands `names`, one after the other, come to."""
    sim = midway(begun).branch()
    for name in names:
        refused(sim, name)
    return ended(sim)


@functools.cache
def nothing_done(begun: str, *names: str) -> bool:
    """Return whether each of the commands `names`, one after the other, is refused."""
    sim = midway(begun).branch()
    return not [name for name in names if not refused(sim, name)]


def ended(sim: Simulation) -> dict[str, object]:
    Commands(sim).settle()
    sim.assert_sound()
    return outcome(sim)


@pytest.mark.parametrize("begun", ["open request", "no request"])
@pytest.mark.parametrize(("first", "second"), sampled(itertools.product(COMMANDS, COMMANDS), every=4))
def test_two_commands_at_once_are_as_one_after_the_other(first: str, second: str, begun: str) -> None:
    alone = midway(begun).branch()
    refused(alone, first)
    for write in range(1, len(alone.writes) + 1):
        answers: list[bool] = []
        sim = midway(begun).branch(at=write)
        sim.meanwhile = partial(lambda w, a: a.append(refused(w, second)), sim, answers)
        first_refused, second_refused = refused(sim, first), answers.pop()
        done = [name for name, no in ((first, first_refused), (second, second_refused)) if not no]
        assert ended(sim) in [in_turn(begun, *order) for order in itertools.permutations(done)], write
        assert done or all(nothing_done(begun, *order) for order in itertools.permutations((first, second))), write
