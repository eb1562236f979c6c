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
    for number in range(times):
        end = None if valid is None else NOW + valid
        record = record.failed(failure(at, head=number), before=number - 1, valid_until=end)
        (back_off,) = record.back_offs
        found.append(back_off.until - at)
        at = back_off.until
    return found


def test_waits_grow_from_five_minutes_to_a_day() -> None:
    assert waits(12, None) == [min(SHORTEST * 2**n, LONGEST) for n in range(12)]


def test_a_thousand_failures_are_counted() -> None:
    assert waits(1000, None)[-1] == LONGEST


@pytest.mark.parametrize(("valid", "most"), [(timedelta(hours=8), timedelta(hours=1)), (timedelta(0), SHORTEST)])
def test_remaining_validity_caps_a_wait(valid: timedelta, most: timedelta) -> None:
    assert SHORTEST <= max(waits(12, valid)) <= most


def test_each_step_counts_for_itself() -> None:
    record = (
        RotationRecord().failed(failure(), before=7, valid_until=None).failed(failure(), before=7, valid_until=None)
    )
    record = record.failed(failure(step="retire"), before=7, valid_until=None)
    assert [(back_off.step, back_off.failures) for back_off in record.back_offs] == [("promote", 2), ("retire", 1)]
    left = record.succeeded("promote", before=7, after=9)
    assert [back_off.step for back_off in left.back_offs] == ["retire"]
    assert left.waiting("retire", 9, NOW)  # the entries are the scheduler's own, not a person's


def test_a_persons_action_ends_it() -> None:
    record = RotationRecord().failed(failure(head=7), before=7, valid_until=None)
    assert record.waiting("promote", 7, NOW)
    assert not record.waiting("promote", 8, NOW)
    assert not record.waiting("retire", 7, NOW)


def test_it_ends_in_time_and_by_a_set_back_clock() -> None:
    record = RotationRecord().failed(failure(), before=7, valid_until=None)
    assert not record.waiting("promote", 7, record.back_offs[0].until)
    assert not record.waiting("promote", 7, NOW - timedelta(days=1))


def test_a_person_in_between_counts_from_one() -> None:
    record = RotationRecord().failed(failure(head=7), before=5, valid_until=None)
    assert record.failed(failure(head=11), before=9, valid_until=None).back_offs[0].failures == 1
    assert record.failed(failure(head=9), before=7, valid_until=None).back_offs[0].failures == 2
