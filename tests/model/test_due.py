"""When renewal starts: with time for people before the end, or after a share of the lifetime."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.model.due import due_date
from tests.support.accounts import NOW, later

DAY = timedelta(days=1)


def test_people_and_what_is_to_spare_come_off_the_end() -> None:
    due = due_date(NOW, later(days=365), lead=21 * DAY, safety=14 * DAY, share=0.99)
    assert due.at == later(days=330)
    assert due.decided_by.because == "14d to spare and 21d for the partner's people"


@pytest.mark.parametrize(("safety", "lead"), [(999_999, 14), (14, 999_999), (999_999, 999_999), (300, 300)])
def test_more_time_than_there_is_makes_it_due_from_the_beginning(safety: int, lead: int) -> None:
    assert due_date(NOW, later(days=365), lead=lead * DAY, safety=safety * DAY, share=0.66).at == NOW
