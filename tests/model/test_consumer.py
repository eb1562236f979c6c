"""Who holds what, and whom a retirement would cut off."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model.consumer import ConsumerRecord, Holding, stragglers
from broker.model.lease import BundleKind, Lease
from broker.model.names import AccountName
from tests.support.accounts import MZP, NOW, later

NOBODY: frozenset[str] = frozenset()


def a_lease(id_: str = "l1", generation: int = 1, **fields: object) -> Lease:
    lease = Lease(id_, "entity-1", MZP, "fleet", BundleKind.DIRECT, generation, NOW, later(hours=1))
    return replace(lease, **fields)  # type: ignore[arg-type]


def a_record(*leases: Lease) -> ConsumerRecord:
    record = ConsumerRecord("entity-1", "billing")
    for lease in leases:
        record = record.given(lease, now=NOW)
    return record


def by_hand(generation: int = 1) -> ConsumerRecord:
    holding = Holding(MZP, "fleet", "by hand", generation, "", NOW, None)
    return ConsumerRecord("hand-anna", "Anna", (holding,))


def test_who_holds_a_generation_is_a_straggler() -> None:
    assert stragglers((a_record(a_lease()),), MZP, 1, NOW) == {"billing"}


@pytest.mark.parametrize(
    ("account", "generation", "when"),
    [(AccountName("other"), 1, NOW), (MZP, 2, NOW), (MZP, 1, later(hours=1)), (MZP, 1, later(days=9))],
    ids=["another account", "another generation", "at its very end", "long over"],
)
def test_who_holds_something_else_or_no_longer_is_none(account: AccountName, generation: int, when: object) -> None:
    assert stragglers((a_record(a_lease()),), account, generation, when) == NOBODY  # type: ignore[arg-type]


def test_one_process_on_a_newer_generation_does_not_hide_another_on_the_older_one() -> None:
    record = a_record(a_lease(), a_lease("l2", 2))
    assert stragglers((record,), MZP, 1, NOW) == {"billing"}
    assert stragglers((record,), MZP, 2, NOW) == {"billing"}
    assert stragglers((record,), MZP, 1, later(hours=1)) == NOBODY


def test_a_lease_renewed_onto_a_newer_generation_takes_the_place_of_the_older_one() -> None:
    record = a_record(a_lease(), a_lease("l1", 2))
    assert stragglers((record,), MZP, 1, NOW) == NOBODY
    assert stragglers((record,), MZP, 2, NOW) == {"billing"}


def test_a_holding_that_several_share_ends_with_the_longest_and_not_when_one_gives_back() -> None:
    record = a_record(a_lease(), a_lease("l2", expires=later(hours=2)), a_lease("l3"))
    for lease in ("l1", "l2", "l3"):
        record = record.returned(lease)
    assert stragglers((record,), MZP, 1, later(minutes=90)) == {"billing"}
    assert stragglers((record,), MZP, 1, later(hours=2)) == NOBODY


@pytest.mark.parametrize(
    "other", [a_lease("l2", 2, application="app-2"), a_lease("l2", 2, kind=BundleKind.GATEWAY)], ids=["app", "kind"]
)
def test_another_application_or_kind_does_not(other: Lease) -> None:
    assert stragglers((a_record(a_lease(), other),), MZP, 1, NOW) == {"billing"}


def test_what_a_person_holds_by_hand_never_runs_out() -> None:
    assert stragglers((by_hand(),), MZP, 1, later(days=10_000)) == {"Anna"}


def test_what_a_person_holds_survives_a_lease_to_the_same_consumer() -> None:
    record = by_hand().given(a_lease("l2", 2), now=later(days=10_000))
    assert stragglers((record,), MZP, 1, later(days=10_000)) == {"Anna"}


def test_being_given_the_same_lease_twice_changes_nothing() -> None:
    assert a_record(a_lease(), a_lease()) == a_record(a_lease())


@pytest.mark.parametrize(("hours", "kept"), [(3, ["l1", "l2"]), (24, ["l1", "l2"]), (25, ["l2"])])
def test_what_ran_out_a_day_ago_is_dropped_with_the_next_lease(hours: int, kept: list[str]) -> None:
    """Not at once: on a machine whose clock is ahead, what lives looks as if it had run out."""
    now = later(hours=hours)
    record = a_record(a_lease()).given(a_lease("l2", application="app-2", expires=later(days=9)), now=now)
    assert [h.lease for h in record.holdings] == kept


def test_what_ran_out_is_shared_with_nobody() -> None:
    record = a_record(a_lease()).given(a_lease("l2", expires=later(hours=9)), now=later(hours=8))
    assert record.returned("l2").holdings == ()


def test_what_is_given_back_is_held_no_longer() -> None:
    assert stragglers((a_record(a_lease()).returned("l1"),), MZP, 1, NOW) == NOBODY


@pytest.mark.parametrize("id_", ["", "l2", "L1"])
def test_giving_back_another_lease_changes_nothing(id_: str) -> None:
    assert a_record(a_lease()).returned(id_) == a_record(a_lease())


def test_giving_back_twice_is_the_same_as_once() -> None:
    once = a_record(a_lease(), a_lease("l2", application="app-2")).returned("l1")
    assert once.returned("l1") == once


def test_a_renewal_that_arrives_late_does_not_shorten_the_holding() -> None:
    renewed = a_lease(expires=later(hours=2))
    record = a_record(renewed, a_lease())
    assert stragglers((record,), MZP, 1, NOW + timedelta(minutes=90)) == {"billing"}
