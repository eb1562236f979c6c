"""Revoking leases: which of them end, what evidence says, and kills in between."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.copies import replace
from broker.errors import InputError
from broker.model.holdings import ConsumerRecord, Which
from broker.model.lease import BundleKind, Lease
from broker.rotation import leases
from tests.rotation.life_cycle import midway
from tests.rotation.simulation import Fault, Killed, Simulation
from tests.support.accounts import MZP, assert_refused


def a_lease(sim: Simulation, id_: str, entity: str, application: str, generation: int = 1) -> Lease:
    return Lease(id_, entity, MZP, application, BundleKind.DIRECT, generation, sim.now, sim.now + timedelta(minutes=30))


def held_by_two() -> Simulation:
    """An account that two consumers hold, one of them with three leases, two of which share a holding."""
    sim = midway("open request").branch()
    for entity, name, lease, application in (
        ("e-1", "reader", "aa01", "one"),
        ("e-1", "reader", "aa02", "one"),
        ("e-1", "reader", "bb03", "two"),
        ("e-2", "batch", "cc04", "two"),
    ):
        record = sim.records.get(entity, ConsumerRecord(entity, name))
        sim.records[entity] = record.given(a_lease(sim, lease, entity, application), now=sim.now)
    return sim


def left(sim: Simulation) -> set[str]:
    return {h.lease for record in sim.records.values() for h in record.holdings}


@pytest.mark.parametrize(
    ("which", "stays"),
    [
        (Which(lease="bb03"), {"aa02", "cc04"}),
        (Which(lease="bb"), {"aa02", "cc04"}),
        (Which(consumer="reader"), {"cc04"}),
        (Which(consumer="e-2"), {"aa02", "bb03"}),
        (Which(account=MZP), set()),
        (Which(account=MZP, generation=1), set()),
        (Which(account=MZP, generation=2), {"aa02", "bb03", "cc04"}),
        (Which(account="other"), {"aa02", "bb03", "cc04"}),
        (Which(account=MZP, consumer="batch"), {"aa02", "bb03"}),
        (Which(lease="cc04", consumer="reader"), {"aa02", "bb03", "cc04"}),
    ],
)
def test_revoked_leases_are_not_waited_for(which: Which, stays: set[str]) -> None:
    sim = held_by_two()
    ended = sim.leases().revoke(which, "host is gone")
    assert left(sim) == stays
    assert {h.lease for _, h in ended} == {"aa02", "bb03", "cc04"} - stays
    noted = [e.facts for e in sim.whole_chain() if e.what == "lease-revoked"]
    assert {(f["lease"], f["reason"]) for f in noted} == {(h.lease, "host is gone") for _, h in ended}
    assert sim.leases().revoke(which, "again") == ()


def test_the_renewal_of_all_of_them_is_refused() -> None:
    sim = held_by_two()
    sim.leases().revoke(Which(consumer="reader"), "stolen")
    for id_, application in (("aa01", "one"), ("aa02", "one"), ("bb03", "two")):
        assert sim.records["e-1"].has_revoked(a_lease(sim, id_, "e-1", application))
    assert not sim.records["e-2"].has_revoked(a_lease(sim, "cc04", "e-2", "two"))


def test_an_id_ends_no_other_lease() -> None:
    sim = held_by_two()
    (ended,) = sim.leases().revoke(Which(lease="aa02"), "stolen")
    assert ended[1].shared
    assert left(sim) == {"aa02", "bb03", "cc04"}, "the holding is that of aa01 too"
    assert sim.records["e-1"].has_revoked(a_lease(sim, "aa02", "e-1", "one"))
    assert not sim.records["e-1"].has_revoked(a_lease(sim, "aa01", "e-1", "one"))
    assert [e.facts["scope"] for e in sim.whole_chain() if e.what == "lease-revoked"] == ["lease"]


def test_an_older_lease_of_a_shared_holding_ends() -> None:
    """The record knows the newest lease of a holding; the service's log has the others."""
    sim = held_by_two()
    older, newest = "0" * 32, "1" * 32
    for id_ in (older, newest):
        sim.records["e-3"] = sim.records.get("e-3", ConsumerRecord("e-3", "many")).given(
            a_lease(sim, id_, "e-3", "one"), now=sim.now
        )
    assert sim.leases().revoke(Which(lease=older), "stolen") == ()
    sim.leases().revoke(Which(lease=older, consumer="many"), "stolen")
    assert sim.records["e-3"].has_revoked(a_lease(sim, older, "e-3", "one"))
    assert not sim.records["e-3"].has_revoked(a_lease(sim, newest, "e-3", "one"))
    assert [e.facts["lease"] for e in sim.whole_chain() if e.what == "lease-revoked"] == [older]


def test_an_ambiguous_id_ends_nothing() -> None:
    sim = held_by_two()
    sim.records["e-2"] = sim.records["e-2"].given(a_lease(sim, "bb04", "e-2", "three"), now=sim.now)
    with assert_refused(InputError, "several leases"):
        sim.leases().revoke(Which(lease="bb"), "x")
    assert left(sim) == {"aa02", "bb03", "bb04", "cc04"}


@pytest.mark.parametrize("fault", [Fault.KILLED_BEFORE, Fault.KILLED_AFTER])
def test_killed_revocation_is_finished(fault: Fault) -> None:
    """The evidence comes first: a kill leaves an entry too many, never a holder that vanished without one."""
    sim = held_by_two().branch(at=2, fault=fault)
    with pytest.raises(Killed):
        sim.leases().revoke(Which(consumer="batch"), "gone")
    assert any(e.what == "lease-revoked" for e in sim.whole_chain())
    if fault is Fault.KILLED_BEFORE:
        sim.leases().revoke(Which(consumer="batch"), "gone")
    assert left(sim) == {"aa02", "bb03"}


def test_many_leases_are_ended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account's document holds the evidence of one part at a time."""
    monkeypatch.setattr(leases, "_TOGETHER", 2)
    sim = held_by_two()
    sim.leases().revoke(Which(account=MZP), "stolen")
    assert sim.writes.count("account") == 2
    assert not left(sim)


def test_leases_of_a_removed_account_end_too() -> None:
    sim = held_by_two()
    sim.rotation().remove(MZP, "contract ended")
    entries = len(sim.whole_chain())
    sim.leases().revoke(Which(account=MZP), "over")
    assert not left(sim)
    assert len(sim.whole_chain()) == entries


def test_a_holding_by_hand_ends_too() -> None:
    sim = held_by_two()
    by_hand = replace(sim.records["e-2"].holdings[0], lease="", kind="by hand", until=None)
    sim.records["anna"] = ConsumerRecord("anna", "Anna", (by_hand,))
    sim.leases().revoke(Which(consumer="Anna"), "gone")
    assert sim.records["anna"].holdings == ()
