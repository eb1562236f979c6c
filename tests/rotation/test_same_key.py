"""Requests with the current key again, and keys that others know."""

from __future__ import annotations

from functools import partial

import pytest

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.generation import SigningRequest
from broker.model.stage import Stage
from broker.partners import catalogue
from broker.partners.profile import Profile
from tests.rotation.life_cycle import PATIENCE, Commands, lived, midway
from tests.rotation.simulation import Fault, Killed, Simulation
from tests.support.accounts import MZP, assert_refused


def allowing(_: Account) -> Profile:
    profile = catalogue.builtin("stellantis")
    return replace(profile, key=replace(profile.key, reuse=True))


def again(sim: Simulation) -> SigningRequest:
    return sim.rotation(profile=allowing).draft_with_same_key(MZP)


def a_simulation() -> Simulation:
    """Return 1 previous, 2 current, 3 a candidate (a password)."""
    return midway("no request").branch()


def test_the_profile_must_allow_it() -> None:
    sim = a_simulation()
    with assert_refused(RefusedError, "profile stellantis does not allow"):
        sim.rotation().draft_with_same_key(MZP)
    assert sim.writes == []


def test_key_lives_as_long_as_its_generations() -> None:
    sim = a_simulation()
    drafted = again(sim)
    assert again(sim) == drafted
    assert (drafted.number, drafted.key, sim.writes) == (3, "kv:2", ["account"])
    lived(sim, [lambda c: c.answer(3), lambda c: c.promote(4), lambda c: c.retire_all(), lambda c: c.settle()])
    assert sim.account.generation(4).parts.key == "kv:2"
    assert "kv:2" in sim.living_keys()
    lived(sim, [lambda c: c.draft(), lambda c: c.answer(4), lambda c: c.promote(5), lambda c: c.retire(4)])
    Commands(sim).settle()
    assert sim.living_keys() == {"kv:4"}
    sim.assert_sound()


def test_an_open_request_with_another_key_stays() -> None:
    sim = midway("open request").branch()
    with assert_refused(ConflictError, "another key"):
        again(sim)
    assert sim.account.open_request == sim.account.request(3)


@pytest.mark.parametrize("write", [1, 2])
def test_a_new_key_for_its_number_is_destroyed(write: int) -> None:
    """A concurrent draft made it, for the number that this request got."""
    sim = a_simulation().branch(at=write)
    sim.meanwhile = partial(again, sim)
    assert Commands(sim).draft() == again(sim).csr
    Commands(sim).settle()
    assert sim.living_keys() == {"kv:1", "kv:2"}
    sim.assert_sound()


@pytest.mark.parametrize("fault", Fault)
def test_a_killed_draft_is_found_again(fault: Fault) -> None:
    sim = a_simulation().branch(at=1, fault=fault)
    try:
        again(sim)
    except (Killed, Exception):  # noqa: BLE001 - the fault
        sim.now += PATIENCE
    assert again(sim).number == 3
    sim.assert_sound()


# -- keys that others know


def known(sim: Simulation) -> SigningRequest:
    return sim.rotation().report_compromise(MZP, "stolen laptop", suspend=False)


def replaced() -> Simulation:
    """Return 2 previous, with a key that others know, and 4 current."""
    sim = a_simulation()
    Commands(sim).reject(3)
    known(sim)
    return lived(sim, [lambda c: c.answer(3), lambda c: c.promote(4)])


def test_a_new_request_is_made_immediately() -> None:
    sim = a_simulation()
    assert known(sim) == known(sim)
    assert (sim.account.open_request, sim.account.request(3).key) == (sim.account.request(3), "kv:3")


def test_the_open_request_is_taken() -> None:
    sim = midway("open request").branch()
    assert known(sim).number == 3


@pytest.mark.parametrize("write", range(1, 4))
@pytest.mark.parametrize("fault", Fault)
def test_a_killed_report_ends_the_same(fault: Fault, write: int) -> None:
    sim = a_simulation().branch(at=write, fault=fault)
    try:
        known(sim)
    except (Killed, Exception):  # noqa: BLE001 - the fault
        sim.now += PATIENCE
    known(sim)
    Commands(sim).settle()
    assert [r.number for r in sim.account.requests] == [1, 2, 3]
    assert sim.account.compromised == sim.account.generation(2)
    sim.assert_sound()


def test_it_is_retired_without_an_overlap() -> None:
    sim = replaced()
    sim.held = frozenset({"billing"})
    Commands(sim).retire(2)
    assert sim.account.generation(2).stage is Stage.RETIRED
    assert sim.account.outbox[-1].facts["reason"] == "others know its key: stolen laptop"
    assert sim.account.compromised == sim.account.generation(2), "its certificate may be good"


def test_it_comes_back_by_force_only() -> None:
    sim = replaced()
    with assert_refused(RefusedError, "others know the key of generation 2"):
        Commands(sim).roll_back(2)
    sim.rotation().roll_back(MZP, 2, untried_because="the new one does not work")
    assert sim.account.current == sim.account.generation(2)
    sim.assert_sound()


def test_its_end_is_confirmed_once() -> None:
    sim = replaced()
    assert sim.rotation().revoked(MZP, 2, "by telephone")
    assert not sim.rotation().revoked(MZP, 2)
    assert sim.account.compromised is None
    sim.assert_sound()
