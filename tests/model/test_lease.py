"""How long a bundle may run."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from broker.errors import RefusedError
from broker.model.lease import Cap, expiry
from tests.support.accounts import NOW, assert_refused, later

CAP = Cap(once=timedelta(hours=1), whole=timedelta(hours=24))
LONG = later(days=365)


def ends(
    asked: timedelta = timedelta(minutes=5),
    *,
    now: datetime = NOW,
    not_after: datetime = LONG,
) -> timedelta:
    return expiry(asked, CAP, first_issued=NOW, now=now, not_after=not_after) - now


def test_what_is_asked_is_given() -> None:
    assert ends() == timedelta(minutes=5)


def test_no_more_than_the_cap_at_a_time() -> None:
    assert ends(timedelta(days=9)) == timedelta(hours=1)


def test_no_renewal_goes_past_the_whole() -> None:
    assert ends(timedelta(hours=1), now=later(hours=23, minutes=30)) == timedelta(minutes=30)


def test_no_lease_outlives_the_certificate() -> None:
    assert ends(not_after=later(seconds=90)) == timedelta(seconds=90)


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(seconds=-1), timedelta(days=-400)])
def test_no_time_at_all_is_refused(asked: timedelta) -> None:
    with assert_refused(RefusedError):
        ends(asked)


@pytest.mark.parametrize("not_after", [NOW, later(seconds=-1), later(days=-400)])
def test_an_expired_certificate_is_refused_by_name(not_after: datetime) -> None:
    with assert_refused(RefusedError, "expired"):
        ends(not_after=not_after)


@pytest.mark.parametrize("hours", [24, 25, 1000])
def test_a_lease_that_had_all_its_time_is_refused_by_name(hours: int) -> None:
    with assert_refused(RefusedError, "all the time"):
        ends(now=later(hours=hours))


def test_a_clock_that_goes_back_gives_no_more_than_the_cap() -> None:
    assert ends(timedelta(days=9), now=later(days=-30)) == timedelta(hours=1)
