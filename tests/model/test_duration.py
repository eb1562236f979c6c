"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InputError
from broker.model.duration import duration_text, parse_duration
from tests.support.accounts import assert_refused


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("1s", timedelta(seconds=1)),
        ("1h30m", timedelta(minutes=90)),
        ("10h 15m", timedelta(minutes=615)),
        ("1d 1h 1m 1s", timedelta(days=1, hours=1, minutes=1, seconds=1)),
        (" 90s\n", timedelta(seconds=90)),
        ("30d", timedelta(days=30)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_a_duration_is_read(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "bad",
    ["", " ", "0s", "0d0h", "5", "d", "1.5h", "-1h", "+1h", "1 h", "1H", "1w", "1y", "1M", "1hh", "1h1h", "1m1h",
     "1h  1m", "1h,1m", "\u0663d", "1e3s", "1_0s", "9999999s", "1h30", "P1D", "20%"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(bad: str) -> None:
    with assert_refused(InputError):
        parse_duration(bad)


def test_a_text_without_end_is_refused_at_once_and_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        parse_duration("9" * 100_000 + "s")
    assert len(caught.value.what) < 100


@given(st.integers(1, 36500 * 86400))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_duration(duration_text(timedelta(seconds=seconds))) == timedelta(seconds=seconds)
