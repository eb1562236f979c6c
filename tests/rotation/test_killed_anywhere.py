"""After a fault at any write of the life cycle, the repeated command ends as if there had been none."""

from __future__ import annotations

import functools
from collections import Counter

import pytest

from broker.model.stage import Stage
from tests.rotation.life_cycle import LIFE, lived, outcome, run
from tests.rotation.simulation import Fault, Simulation
from tests.support.depth import sampled

# Of each step of the life, in order: a new write shows here, and is then covered below.
WRITES = (1, 1, 2, 2, 1, 1, 3, 13, 2, 3, 2, 1, 1, 2, 3, 15, 5, 3, 5, 14, 4, 5, 2, 1, 2, 2, 1, 1, 3, 7, 36)
PLACES = [(step, write) for step, writes in enumerate(WRITES) for write in range(1, writes + 1)]


@functools.cache
def before(step: int) -> Simulation:
    """Return the sim in which `step` begins, when nothing went wrong until then. Branch it; do not change it."""
    return lived(before(step - 1).branch(), LIFE[step - 1 : step]) if step else Simulation()


def test_the_table_covers_every_write() -> None:
    assert tuple(len(before(step + 1).writes) for step in range(len(LIFE))) == WRITES


def test_life_cycle_ends_settled() -> None:
    sim = before(len(LIFE))
    sim.assert_sound()
    assert {g.stage for g in sim.account.generations} == {Stage.CURRENT, Stage.RETIRED}
    assert sim.living_keys() == {"kv:4"}
    assert [sim.secret(ref) for ref in sim.living_secrets()] == ["pw-4"]
    assert not sim.account.outbox
    assert len(sim.evidence) == sim.account.head.number


@pytest.mark.slow
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize(("step", "write"), sampled(PLACES, every=4))
def test_repeated_command_ends_the_same(step: int, write: int, fault: Fault) -> None:
    sim = before(step).branch(at=write, fault=fault)
    run(sim, LIFE[step])
    sim.assert_sound()
    assert_no_needless_logins(sim, before(step + 1), fault)
    lived(sim, LIFE[step + 1 :])
    sim.assert_sound()
    assert outcome(sim) == outcome(before(len(LIFE)))


def assert_no_needless_logins(sim: Simulation, calm: Simulation, fault: Fault) -> None:
    """A set is tried once more at most; and not even that where the command went on."""
    extra = Counter(sim.logins)
    extra.subtract(calm.logins)
    allowed = 1 if fault.ends_the_command else 0
    assert all(count <= allowed for count in extra.values()), extra
