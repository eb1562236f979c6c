"""Renewal starts early enough before the end, or after a share of the lifetime."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.copies import replace
from broker.model.account import Account
from broker.model.due import Renewal, account_due, lead_time
from broker.model.generation import Closed, Submission
from tests.support.accounts import NOW, a_request, an_account, later, with_current

DAY = timedelta(days=1)


def test_due_leaves_lead_and_safety() -> None:
    due = account_due(with_current(), Renewal(share=0.99))
    assert due
    assert due.at == later(days=330)
    assert due.because == "14d to spare and 21d for the partner's people"


@pytest.mark.parametrize(("safety", "lead"), [(999_999, 14), (14, 999_999), (999_999, 999_999), (300, 300)])
def test_long_lead_is_due_from_the_start(safety: int, lead: int) -> None:
    due = account_due(with_current(), Renewal(lead_time=lead * DAY, safety=safety * DAY))
    assert due
    assert due.at == NOW


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("20%", 73), ("999d", 365)])
def test_an_account_sets_when_to_renew(text: str, days: int) -> None:
    account = replace(with_current(), renew_before=text)
    certificate = account.certificate(account.generations[0].parts.certificate)
    due = account_due(account, Renewal(share=0.5))
    assert due
    assert due.at == certificate.not_after - days * DAY


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
def test_lead_time_is_the_longest_recent(
    waits: tuple[timedelta, ...], known: timedelta | None, lead: timedelta
) -> None:
    assert lead_time(answered(*waits), known).time == lead
