"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import InputError
from broker.model.duration import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30d", timedelta(days=30)),
        ("10h 15m", timedelta(hours=10, minutes=15)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        (" 90s ", timedelta(seconds=90)),
    ],
)
def test_a_duration_is_read_and_written_again(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration
    assert parse_duration(duration_text(duration)) == duration


@pytest.mark.parametrize(
    "text", ["", "0s", "30", "d", "-1d", "1.5h", "1h 1d", "1d 1d", "1w", "1d  1h", "9999999d", "\u0661d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert caught.value.hint
