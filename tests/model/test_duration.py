"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import InputError
from broker.model.duration import age_text, counted, duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30d", timedelta(days=30)),
        ("10h 15m", timedelta(hours=10, minutes=15)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        (" 90s ", timedelta(seconds=90)),
    ],
)
def test_duration_round_trips(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration
    assert parse_duration(duration_text(duration)) == duration


@pytest.mark.parametrize(
    "text", ["", "0s", "30", "d", "-1d", "1.5h", "1h 1d", "1d 1d", "1w", "1d  1h", "9999999d", "\u0661d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(0), "less than a minute"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(minutes=119), "1 hour"),
        (timedelta(hours=47), "1 day"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_age_is_in_its_largest_unit(age: timedelta, text: str) -> None:
    assert age_text(age) == text


def test_a_number_agrees_with_its_noun() -> None:
    assert [counted(n, "chain") for n in (0, 1, 2)] == ["0 chains", "1 chain", "2 chains"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]
