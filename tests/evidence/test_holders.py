"""Who held which generation, and when, by the evidence: grants, batches, renewals, returns and revocations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest

from broker.copies import replace
from broker.evidence import holders as module
from broker.evidence.holders import EARLIER, Holder, Period, holders
from broker.model.chain import Entry, Fact, Head, appended
from broker.model.clock import Stamp
from tests.support.accounts import MZP, NOW, later

ALWAYS = Period(NOW - timedelta(days=9), NOW + timedelta(days=9))
HOUR = timedelta(hours=1)


def entry(minutes: float, what: str, **facts: Fact) -> Entry:
    return appended("issued/one", Head(), Stamp(later(minutes=minutes), "server"), what, facts)


def of_account(minutes: float, what: str, **facts: Fact) -> Entry:
    return replace(entry(minutes, what, **facts), chain=f"accounts/{MZP}")


def said(lease: str = "l1", until: float = 60, **more: Fact) -> dict[str, Fact]:
    return {
        "account": MZP,
        "application": "fleet",
        "generation": 1,
        "kind": "direct",
        "consumer": "e-1",
        "consumer_name": "reader",
        "lease": lease,
        "expires": later(minutes=until).isoformat().replace("+00:00", "Z"),
        **more,
    }


def issued(minutes: float, lease: str = "l1", until: float = 60, **more: Fact) -> Entry:
    return entry(minutes, "bundle-issued", **said(lease, until, **more))


def batch(minutes: float, *lines: dict[str, Fact]) -> Entry:
    records = "\n".join(json.dumps({"what": "bundle-issued", **line}) for line in lines)
    return entry(minutes, "bundles-issued", count=len(lines), records=records)


def found(entries: Iterable[Entry], period: Period = ALWAYS) -> list[Holder]:
    faults: list[Entry] = []
    rows = list(holders(entries, MZP, period, faults.append))
    assert not faults
    return rows


def spans(entries: Iterable[Entry], period: Period = ALWAYS) -> list[tuple[str, int, float, float, str]]:
    """Return lease, generation, start and end in minutes, and how it ended."""
    return [(h.lease, h.generation, _minutes(h.since), _minutes(h.until), h.end) for h in found(entries, period)]


def _minutes(moment: datetime) -> float:
    return (moment - NOW) / timedelta(minutes=1)


def test_a_lease_is_held_until_it_expires() -> None:
    (held,) = found([issued(0)])
    assert held == Holder("reader", "e-1", "fleet", "direct", 1, "l1", NOW, NOW + HOUR, "expired")


def test_a_lease_that_goes_on_has_not_expired() -> None:
    (held,) = found([issued(0)])
    assert [held.at(later(minutes=at)).end for at in (59, 60)] == ["held", "expired"]
    (ended,) = found([issued(0), entry(1, "bundle-returned", lease="l1", consumer="e-1")])
    assert ended.at(NOW).end == "returned"


def test_a_batch_says_the_same_as_single_entries() -> None:
    lines = [said("l1"), said("l2", consumer="e-2"), said("l3", account="other")]
    single = [entry(0, "bundle-issued", **line) for line in lines]
    assert found([batch(0, *lines)]) == found(single)
    assert {h.lease for h in found(single)} == {"l1", "l2"}


def test_a_renewal_lengthens_it() -> None:
    renewed = [entry(50, "lease-renewed", **said(until=110)), batch(100, {**said(until=160), "what": "lease-renewed"})]
    assert spans([issued(0), *renewed]) == [("l1", 1, 0, 160, "expired")]


def test_a_renewal_by_a_clock_behind_comes_first() -> None:
    assert spans([entry(-3, "lease-renewed", **said(until=90)), issued(0)]) == [("l1", 1, -3, 90, "expired")]


def test_returned_and_revoked_leases_end_then() -> None:
    ends = [entry(10, "bundle-returned", lease="l1", consumer="e-1"), revoked(20, "l2", scope="lease")]
    assert spans([issued(0), issued(0, "l2"), issued(0, "l3"), *ends]) == [
        ("l1", 1, 0, 10, "returned"),
        ("l2", 1, 0, 20, "revoked"),
        ("l3", 1, 0, 60, "expired"),
    ]


def revoked(minutes: float, lease: str, **more: Fact) -> Entry:
    facts: dict[str, Fact] = {"lease": lease, "consumer": "e-1", "generation": 1}
    return of_account(minutes, "lease-revoked", **{**facts, **more})


@pytest.mark.parametrize("more", [{}, {"scope": "holding", "application": "fleet", "kind": "direct"}])
def test_a_revoked_holding_ends_all_its_leases(more: dict[str, Fact]) -> None:
    """Entries of older brokers do not say the scope: they ended the holding."""
    others = [issued(0, "l3", generation=2), issued(0, "l4", consumer="e-2")]
    ended = spans([issued(0), issued(0, "l2"), *others, revoked(30, "l2", **more)])
    assert {(lease, until) for lease, _, _, until, _ in ended} == {("l1", 30), ("l2", 30), ("l3", 60), ("l4", 60)}


def test_another_consumer_ends_no_lease() -> None:
    assert spans([issued(0), entry(10, "bundle-returned", lease="l1", consumer="e-2")])[0][3] == 60


def test_a_refused_renewal_lengthens_nothing() -> None:
    """Evidence of a renewal is written while the record is read that refuses it."""
    entries = [issued(0), revoked(20, "l1"), entry(21, "lease-renewed", **said(until=80))]
    assert spans(entries) == [("l1", 1, 0, 20, "revoked")]


def test_id_granted_again_is_another_line() -> None:
    entries = [issued(0), entry(10, "bundle-returned", lease="l1", consumer="e-1"), issued(15, until=75)]
    assert spans(entries) == [("l1", 1, 0, 10, "returned"), ("l1", 1, 15, 75, "expired")]


def test_moving_lease_has_a_line_per_generation() -> None:
    assert {row[:4] for row in spans([issued(0), issued(30, until=90, generation=2)])} == {
        ("l1", 1, 0, 60),
        ("l1", 2, 30, 90),
    }


@pytest.mark.parametrize(
    ("start", "end", "held"),
    [(-9, 0, False), (-9, 1, True), (10, 20, True), (59, 99, True), (60, 99, False), (-9, 99, True)],
)
def test_lease_counts_if_held_in_the_period(start: int, end: int, held: bool) -> None:
    assert bool(found([issued(0)], Period(later(minutes=start), later(minutes=end)))) is held


def test_evidence_before_the_period_is_asked() -> None:
    """A lease that was renewed all day may have been issued a day before."""
    period = Period(later(hours=24), later(hours=25))
    assert period.around.start <= NOW
    assert Period(datetime.min.replace(tzinfo=NOW.tzinfo), NOW).around.start.year == 1
    renewals = [entry(m, "lease-renewed", **said(until=m + 60)) for m in range(50, 23 * 60 + 50, 50)]
    (held,) = found([issued(0), *renewals], period)
    assert held.since == NOW


def test_only_what_may_go_on_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row leaves when its lease is over: a year of evidence needs no more memory than an hour."""
    most = 0
    over = module._Held.over

    def watched(held: module._Held, now: datetime) -> object:
        nonlocal most
        most = max(most, len(held.found), len(held.ends))
        return over(held, now)

    monkeypatch.setattr(module._Held, "over", watched)
    entries = (issued(minute, f"l{minute}", until=minute + 60) for minute in range(2000))
    assert len(found(entries, Period(NOW, NOW + timedelta(days=9)))) == 2000
    assert most < 100


def test_rows_come_as_the_evidence_is_read() -> None:
    def entries() -> Iterable[Entry]:
        yield issued(0)
        yield issued(200, "l2", until=260)
        raise AssertionError("read too far")

    assert next(iter(holders(entries(), MZP, ALWAYS, lambda _: None))).lease == "l1"


@pytest.mark.parametrize(
    "bad",
    [
        entry(1, "bundle-issued", lease="l1"),
        entry(1, "bundles-issued", records="{"),
        entry(1, "bundles-issued", records='{"lease": 1}'),
        entry(1, "bundle-issued", **{**said(), "expires": "soon"}),
        entry(1, "bundle-returned", lease=1),
        revoked(1, "l1", scope=1),
    ],
)
def test_an_entry_that_makes_no_sense_is_reported(bad: Entry) -> None:
    faults: list[Entry] = []
    late = replace(bad, at=later(hours=9))
    (held,) = holders([issued(0), late], MZP, ALWAYS, faults.append)
    assert held.lease == "l1"
    assert faults == [late]


def test_other_entries_say_nothing() -> None:
    assert found([of_account(0, "generation-moved", generation=1), entry(0, "unknown")]) == []
    assert timedelta(hours=25) < EARLIER
