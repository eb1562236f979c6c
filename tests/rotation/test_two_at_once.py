"""Two commands at once end as if one had come after the other, or as if the one that was refused had not come.

The second command runs as a whole just before each write of the first: whatever the first has read is then stale.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from functools import partial

import pytest

from broker.errors import ConflictError, RefusedError, UnknownNameError, WaitingError
from tests.rotation.life import Commands, midway, outcome
from tests.rotation.world import World

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


def refused(world: World, name: str) -> bool:
    """Give a command; return whether it was refused. Any other failure is a fault of ours."""
    try:
        COMMANDS[name](Commands(world))
    except (ConflictError, RefusedError, UnknownNameError, WaitingError):
        return True
    return False


@functools.cache
def in_turn(begun: str, *names: str) -> dict[str, object]:
    """Return what the commands `names`, one after the other, come to."""
    world = midway(begun).branch()
    for name in names:
        refused(world, name)
    return ended(world)


@functools.cache
def nothing_done(begun: str, *names: str) -> bool:
    """Return whether each of the commands `names`, one after the other, is refused."""
    world = midway(begun).branch()
    return not [name for name in names if not refused(world, name)]


def ended(world: World) -> dict[str, object]:
    Commands(world).settle()
    world.assert_sound()
    return outcome(world)


@pytest.mark.parametrize("begun", ["open request", "no request"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(COMMANDS, COMMANDS)))
def test_two_commands_at_once_are_as_one_after_the_other(first: str, second: str, begun: str) -> None:
    alone = midway(begun).branch()
    refused(alone, first)
    for write in range(1, len(alone.writes) + 1):
        answers: list[bool] = []
        world = midway(begun).branch(at=write)
        world.meanwhile = partial(lambda w, a: a.append(refused(w, second)), world, answers)
        first_refused, second_refused = refused(world, first), answers.pop()
        done = [name for name, no in ((first, first_refused), (second, second_refused)) if not no]
        assert ended(world) in [in_turn(begun, *order) for order in itertools.permutations(done)], write
        assert done or all(nothing_done(begun, *order) for order in itertools.permutations((first, second))), write
