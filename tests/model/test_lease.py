"""Length of leases."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from broker.errors import RefusedError
from broker.model.lease import expiry
from tests.support.accounts import NOW, assert_refused, later

LONG = later(days=365)


def ends(asked: timedelta = timedelta(minutes=5), *, not_after: datetime = LONG) -> timedelta:
    return expiry(asked, now=NOW, not_after=not_after) - NOW


def test_lease_is_as_long_as_asked() -> None:
    assert ends() == timedelta(minutes=5)


def test_cap_bounds_one_lease() -> None:
    assert ends(timedelta(days=9)) == timedelta(hours=1)


def test_certificate_bounds_the_lease() -> None:
    assert ends(not_after=later(seconds=90)) == timedelta(seconds=90)


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(seconds=-1), timedelta(days=-400)])
def test_zero_or_negative_ttl_is_refused(asked: timedelta) -> None:
    with assert_refused(RefusedError):
        ends(asked)


@pytest.mark.parametrize("not_after", [NOW, later(seconds=-1), later(days=-400)])
def test_expired_certificate_is_refused(not_after: datetime) -> None:
    with assert_refused(RefusedError, "expired on 2"):
        ends(not_after=not_after)
