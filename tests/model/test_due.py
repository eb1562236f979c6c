"""Start of renewal: with time for people before the end, or after a share of the lifetime."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model.account import Account
from broker.model.due import due_date, lead_time
from broker.model.generation import Closed, Submission
from tests.support.accounts import NOW, a_request, an_account, later

DAY = timedelta(days=1)


def test_people_and_what_is_to_spare_come_off_the_end() -> None:
    due = due_date(NOW, later(days=365), lead=21 * DAY, safety=14 * DAY, share=0.99)
    assert due.at == later(days=330)
    assert due.decided_by.because == "14d to spare and 21d for the partner's people"


@pytest.mark.parametrize(("safety", "lead"), [(999_999, 14), (14, 999_999), (999_999, 999_999), (300, 300)])
def test_more_time_than_there_is_makes_it_due_from_the_beginning(safety: int, lead: int) -> None:
    assert due_date(NOW, later(days=365), lead=lead * DAY, safety=safety * DAY, share=0.66).at == NOW


def answered(*waits: timedelta) -> Account:
    """Return an account with a request for each of `waits`, that long after it was sent answered."""
    requests = tuple(
        replace(
            a_request(an_account()),
            number=number,
            submissions=(Submission(NOW, "eml", "desk@partner.example", "", ""),),
            closed=Closed.ANSWERED,
            closed_at=NOW + wait,
        )
        for number, wait in enumerate(waits, 1)
    )
    return replace(an_account(), requests=requests)


@pytest.mark.parametrize(
    ("waits", "known", "lead"),
    [
        ((), None, 21 * DAY),
        ((), 5 * DAY, 5 * DAY),
        ((9 * DAY,), None, 9 * DAY),
        ((9 * DAY,), 5 * DAY, 9 * DAY),
        ((30 * DAY, *(5 * [2 * DAY])), None, 2 * DAY),
        ((timedelta(minutes=17),), None, DAY),
        ((timedelta(minutes=17),), 10 * DAY, 10 * DAY),
    ],
)
def test_people_take_the_longest_of_late_a_day_at_least_and_what_the_profile_knows(
    waits: tuple[timedelta, ...], known: timedelta | None, lead: timedelta
) -> None:
    assert lead_time(answered(*waits), known) == lead
