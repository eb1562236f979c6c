"""Back-off: floor, growth, cap by the remaining validity, and its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.model.rotation_record import LONGEST, SHORTEST, BackOff, RotationRecord

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def failure(at: datetime = NOW, *, step: str = "promote", head: int = 7) -> BackOff:
    return BackOff(step, at, at, at, 1, head, "the partner is down")


def waits(times: int, valid: timedelta | None) -> list[timedelta]:
    record, at, found = RotationRecord(), NOW, []
    for _ in range(times):
        record = record.failed(failure(at), valid_until=None if valid is None else NOW + valid)
        assert record.back_off
        found.append(record.back_off.until - at)
        at = record.back_off.until
    return found


def test_waits_grow_from_five_minutes_to_a_day() -> None:
    assert waits(12, None) == [min(SHORTEST * 2**n, LONGEST) for n in range(12)]


def test_a_thousand_failures_are_counted() -> None:
    assert waits(1000, None)[-1] == LONGEST


@pytest.mark.parametrize(("valid", "most"), [(timedelta(hours=8), timedelta(hours=1)), (timedelta(0), SHORTEST)])
def test_remaining_validity_caps_a_wait(valid: timedelta, most: timedelta) -> None:
    assert SHORTEST <= max(waits(12, valid)) <= most


def test_another_step_counts_from_one() -> None:
    record = RotationRecord().failed(failure(), valid_until=None).failed(failure(), valid_until=None)
    again = record.failed(failure(step="retire"), valid_until=None)
    assert record.back_off
    assert record.back_off.failures == 2
    assert again.back_off
    assert again.back_off.failures == 1


def test_a_persons_action_ends_it() -> None:
    back_off = RotationRecord().failed(failure(head=7), valid_until=None).back_off
    assert back_off
    assert back_off.holds("promote", 7, NOW)
    assert not back_off.holds("promote", 8, NOW)
    assert not back_off.holds("retire", 7, NOW)


def test_it_ends_with_its_time_and_by_a_clock_set_back() -> None:
    back_off = RotationRecord().failed(failure(), valid_until=None).back_off
    assert back_off
    assert not back_off.holds("promote", 7, back_off.until)
    assert not back_off.holds("promote", 7, NOW - timedelta(days=1))
