"""Records of holdings, and the stragglers that a retirement would cut off."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.holdings import ConsumerRecord, Holding, NamedLease, Revocation, stragglers
from broker.model.lease import BundleKind, Lease
from broker.model.names import AccountName
from tests.support.accounts import MZP, NOW, later

NOBODY: frozenset[str] = frozenset()
OVER = later(minutes=70)  # of a lease of an hour: it counts ten minutes longer


def named(records: tuple[ConsumerRecord, ...], account: AccountName, generation: int, now: datetime) -> set[str]:
    """Return the names of the stragglers."""
    return {text.partition(" (")[0] for text in stragglers(records, account, generation, now)}


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


def test_holder_is_a_straggler() -> None:
    assert named((a_record(a_lease()),), MZP, 1, NOW) == {"billing"}


@pytest.mark.parametrize(
    ("account", "generation", "when"),
    [(AccountName("other"), 1, NOW), (MZP, 2, NOW), (MZP, 1, OVER), (MZP, 1, later(days=9))],
    ids=["another account", "another generation", "ten minutes after its end", "long over"],
)
def test_other_holding_is_no_straggler(account: AccountName, generation: int, when: object) -> None:
    assert named((a_record(a_lease()),), account, generation, when) == NOBODY  # type: ignore[arg-type]


def test_newer_lease_does_not_hide_older_one() -> None:
    record = a_record(a_lease(), a_lease("l2", 2))
    assert named((record,), MZP, 1, NOW) == {"billing"}
    assert named((record,), MZP, 2, NOW) == {"billing"}
    assert named((record,), MZP, 1, OVER) == NOBODY


def test_a_lease_of_many_processes_hides_none() -> None:
    """One gets the new generation by the idempotency key of all; another still uses the old one, and may renew it."""
    record = a_record(a_lease(), a_lease("l1", 2, expires=later(hours=2)))
    assert named((record,), MZP, 1, NOW) == named((record,), MZP, 2, NOW) == {"billing"}
    assert named((record,), MZP, 1, OVER) == NOBODY
    renewed = record.given(a_lease(expires=later(minutes=80)), now=later(minutes=50))
    assert named((renewed,), MZP, 1, later(minutes=89)) == {"billing"}
    assert renewed.returned("l1").holdings == ()


def test_a_late_grant_moves_no_lease_back() -> None:
    """A process that still hands out the old generation records it after another has moved the lease."""
    record = a_record(a_lease(), a_lease("l1", 2), a_lease())
    assert named((record,), MZP, 1, NOW) == named((record,), MZP, 2, NOW) == {"billing"}


def test_shared_holding_ends_with_the_last() -> None:
    record = a_record(a_lease(), a_lease("l2", expires=later(hours=2)), a_lease("l3"))
    for lease in ("l1", "l2", "l3"):
        record = record.returned(lease)
    assert named((record,), MZP, 1, later(minutes=90)) == {"billing"}
    assert named((record,), MZP, 1, later(minutes=130)) == NOBODY


@pytest.mark.parametrize(
    "other", [a_lease("l2", 2, application="app-2"), a_lease("l2", 2, kind=BundleKind.GATEWAY)], ids=["app", "kind"]
)
def test_other_application_is_kept_apart(other: Lease) -> None:
    assert named((a_record(a_lease(), other),), MZP, 1, NOW) == {"billing"}


def test_holding_by_hand_never_ends() -> None:
    assert named((by_hand(),), MZP, 1, later(days=10_000)) == {"Anna"}


def test_holding_by_hand_survives_a_lease() -> None:
    record = by_hand().given(a_lease("l2", 2), now=later(days=10_000))
    assert named((record,), MZP, 1, later(days=10_000)) == {"Anna"}


def test_same_lease_twice_changes_nothing() -> None:
    assert a_record(a_lease(), a_lease()) == a_record(a_lease())


@pytest.mark.parametrize(("hours", "kept"), [(3, ["l1", "l2"]), (24, ["l1", "l2"]), (25, ["l2"])])
def test_ended_holding_is_kept_for_a_day(hours: int, kept: list[str]) -> None:
    """Not immediately: on a machine whose clock is ahead, a live holding looks as if it had ended."""
    now = later(hours=hours)
    record = a_record(a_lease()).given(a_lease("l2", application="app-2", expires=later(days=9)), now=now)
    assert [h.lease for h in record.holdings] == kept


def test_ended_holding_is_not_shared() -> None:
    record = a_record(a_lease()).given(a_lease("l2", expires=later(hours=9)), now=later(hours=8))
    assert record.returned("l2").holdings == ()


def test_returned_lease_is_not_held() -> None:
    assert named((a_record(a_lease()).returned("l1"),), MZP, 1, NOW) == NOBODY


@pytest.mark.parametrize("id_", ["", "l2", "L1"])
def test_unknown_lease_returns_nothing(id_: str) -> None:
    assert a_record(a_lease()).returned(id_) == a_record(a_lease())


def test_returning_twice_is_the_same_as_once() -> None:
    once = a_record(a_lease(), a_lease("l2", application="app-2")).returned("l1")
    assert once.returned("l1") == once


def test_late_renewal_does_not_shorten_it() -> None:
    renewed = a_lease(expires=later(hours=2))
    record = a_record(renewed, a_lease())
    assert named((record,), MZP, 1, NOW + timedelta(minutes=90)) == {"billing"}


def test_revoked_lease_ends_for_all_sharers() -> None:
    record = a_record(a_lease(), a_lease("l2"))
    assert named((record.returned("l2"),), MZP, 1, NOW) == {"billing"}
    ended = record.ended(record.holdings[0], now=NOW)
    assert named((ended,), MZP, 1, NOW) == NOBODY
    assert ended.has_revoked(a_lease())
    assert ended.has_revoked(a_lease("l3"))
    assert not ended.has_revoked(a_lease("l4", epoch=ended.epoch))


def test_no_clock_decides_what_is_revoked() -> None:
    record = a_record(a_lease())
    ended = record.ended(record.holdings[0], now=later(minutes=-5))
    assert ended.has_revoked(a_lease(first_issued=later(minutes=5)))
    assert not ended.has_revoked(a_lease(first_issued=later(minutes=-9), epoch=ended.epoch))


def test_id_granted_again_revives_no_text() -> None:
    record = a_record(a_lease()).without(a_lease(), now=NOW)
    again = a_lease(epoch=record.epoch)
    record = record.given(again, now=NOW)
    assert record.has_revoked(a_lease())
    assert not record.has_revoked(again)


def test_revoked_lease_is_over_everywhere() -> None:
    record = a_record(a_lease(), a_lease("l1", 2))
    assert record.ended(record.holdings[0], now=NOW).has_revoked(a_lease())


def test_revoking_twice_changes_nothing() -> None:
    record = a_record(a_lease()).without(a_lease(), now=NOW)
    assert record.without(a_lease(), now=later(seconds=1)) == record


def test_revocations_are_kept_as_long_as_leases() -> None:
    """A job that gives its lease back every minute must not let the record grow; the epoch never goes back."""
    record = ConsumerRecord("entity-1", "billing")
    for minute in range(300):
        lease = a_lease(f"l{minute}", epoch=record.epoch)
        record = record.given(lease, now=later(minutes=minute)).without(lease, now=later(minutes=minute))
    assert record.epoch == 300
    assert record.has_revoked(a_lease("l220")), "79 minutes ago: both pairs of clocks may be ten minutes apart"
    assert len(record.revocations) <= 81


def test_a_consumer_cannot_fill_its_record() -> None:
    """Or each of its requests, and an operator's revocation, would write a megabyte, which Vault refuses."""
    record = a_record(*(a_lease(f"l{number}") for number in range(3)))
    full = tuple(Revocation(f"r{number}", (MZP, "fleet", "direct", 1), number + 1, NOW) for number in range(2_000))
    record = replace(record, revocations=full)
    for give_back in (
        partial(record.without, a_lease("l1")),
        partial(record.without_named, NamedLease("l1", MZP, "fleet")),
    ):
        with pytest.raises(RefusedError, match="gave back 2,000 leases"):
            give_back(now=NOW)
        assert give_back(now=later(minutes=81)).revocations
    assert record.without(a_lease("r7"), now=NOW) == record, "it is over already"
    (held,) = record.holdings
    assert record.ended(held, now=NOW).has_revoked(a_lease("l1")), "by an operator"


def test_only_a_shared_holding_covers_others() -> None:
    """A lease that comes back under its id, by an idempotency key, may be over in a newer record."""
    assert not a_record(a_lease()).covers(a_lease())
    assert a_record(a_lease(), a_lease("l2")).covers(a_lease("l3"))


def test_a_straggler_has_lease_and_end() -> None:
    assert stragglers((a_record(a_lease()),), MZP, 1, NOW) == {
        "billing (lease l1 since 2026-01-01 12:00:00Z until 2026-01-01 13:00:00Z)"
    }
    assert stragglers((by_hand(),), MZP, 1, NOW) == {"Anna (by hand since 2026-01-01 12:00:00Z)"}


def test_a_holder_counts_ten_minutes_longer() -> None:
    """At a replica whose clock is five minutes behind, it is valid while a clock five minutes ahead says it ended."""
    (said,) = stragglers((a_record(a_lease()),), MZP, 1, OVER - timedelta(seconds=1))
    assert said.startswith("billing (lease l1 since 2026-01-01 12:00:00Z until 2026-01-01 13:00:00Z, and ten minutes")
