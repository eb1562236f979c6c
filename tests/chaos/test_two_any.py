"""Concurrent commands, drawn from a seed, wave after wave: an order must explain their results.

`make chaos` draws many (CHAOS_SEED=17 CHAOS_HISTORIES=200); a history that fails names the seed that draws it again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Final

import pytest

from tests.chaos.race_histories import STATES, Act, Arena, Race, arena
from tests.support.system import PASSWORD

__all__ = ["arena"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
HISTORIES: Final = int(os.environ.get("CHAOS_HISTORIES", "150"))
SLICE: Final = 6

NEW: Final[tuple[dict[str, object], ...]] = (
    {},
    {},
    {},
    {"supersede": True},
    {"supersede": True, "reuse-key": True},
    {"reuse-key": True},
    {"compromised": "keep"},
    {"compromised": "suspend"},
)
STEPS: Final[tuple[dict[str, object], ...]] = (
    {},
    {"abort": True},
    {"done": "asked"},
    {"done": "set"},
    {"done": "dead"},
)
DRAWN: Final[dict[str, Callable[[random.Random], dict[str, object]]]] = {
    "csr new": lambda dice: dice.choice(NEW),
    "csr cancel": lambda _: {},
    "csr refused": lambda _: {},
    "csr submit": lambda dice: {"reference": f"mail-{dice.randrange(1000)}"},
    "account set": lambda dice: {"renewal": dice.choice(["auto", "manual", "disabled"])},
    "rotation snooze": lambda dice: {"end": dice.random() < 0.5},
    "app add": lambda dice: {"application": f"t{dice.randrange(3)}", "client_id": dice.choice(["", "one", "two"])},
    "app set": lambda dice: {"application": f"t{dice.randrange(3)}", "client_id": f"id-{dice.randrange(3)}"},
    "app remove": lambda dice: {"application": f"t{dice.randrange(3)}"},
    "password set": lambda _: {"password": PASSWORD, "good": True},
    "rotation canary": lambda dice: {"generation": dice.randint(1, 3)},
    "rotation promote": lambda dice: {"generation": dice.randint(0, 3)},
    "rotation rollback": lambda dice: {"generation": dice.randint(0, 2), "forced": dice.random() < 0.4},
    "rotation reject": lambda dice: {"generation": dice.randint(1, 3)},
    "rotation retire": lambda dice: {"generation": dice.randint(1, 3), "forced": dice.random() < 0.7},
    "rotation revoked": lambda dice: {"generation": dice.randint(1, 3)},
    "password rotate": lambda dice: dice.choice(STEPS),
    "lease revoke": lambda dice: {"generation": dice.randint(1, 2)},
    "lease key": lambda dice: {"again": dice.random() < 0.5},
}


def drawn(arena: Arena, dice: random.Random, race: Race) -> Act:
    """Draw a command, half of them from those that quarrel most."""
    if dice.random() < 0.2 and (imported := arena.imported(race)):
        return imported
    often = ("csr new", "csr cancel", "password set", "rotation promote", "rotation rollback")
    name = dice.choice(often if dice.random() < 0.5 else list(DRAWN))
    return Act(name, DRAWN[name](dice))


def play(arena: Arena, seed: int) -> None:
    """Race up to three waves of two to four commands on an account in any state."""
    dice = random.Random(seed)
    race = arena.begun(dice.choice(list(STATES)))
    for wave in range(dice.randint(1, 3)):
        acts = [drawn(arena, dice, race) for _ in range(dice.randint(2, 4))]
        arena.race(race, *acts, seed=10 * seed + wave, slowness=dice.choice([0.0, 0.01, 0.03]))
    try:
        arena.judged(race)
    except AssertionError as error:
        raise AssertionError(f"replay with CHAOS_SEED={seed} CHAOS_HISTORIES=1\n{error}") from None


def test_a_few_histories_are_explained(arena: Arena) -> None:
    for seed in range(SEED, SEED + SLICE):
        play(arena, seed)


@pytest.mark.chaos
def test_many_of_any_histories_are_explained(arena: Arena) -> None:
    for seed in range(SEED, SEED + HISTORIES):
        play(arena, seed)
