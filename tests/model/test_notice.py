"""Rungs of a certificate's end, and which notices are given."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from broker.model.notice import KEPT, Notice, decided, delivered, rung

START = datetime(2025, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def climbed(lifetime: int, needed: int, past: int = 0) -> list[str]:
    """Return the rungs of a certificate in their order, seen every six hours."""
    seen: list[str] = []
    for step in range((lifetime + past) * 4 + 1):
        found = rung(START, START + lifetime * DAY, needed * DAY, START + step * DAY / 4)
        if found not in seen[-1:]:
            seen.append(found)
    return seen


@pytest.mark.parametrize(
    ("lifetime", "needed", "first"),
    [(1095, 35, "60d"), (365, 35, "60d"), (365, 100, "60d"), (90, 35, "30d"), (60, 20, "14d"), (30, 30, "14d")],
)
def test_the_first_rung_fits_the_lifetime(lifetime: int, needed: int, first: str) -> None:
    assert climbed(lifetime, needed)[:2] == ["begin", first]


def test_a_year_has_each_rung_once() -> None:
    """In their order, and every week after the end."""
    weeks = [f"expired-{n}d" for n in (1, 3, *range(7, 63, 7))]
    assert climbed(365, 35, past=60) == ["begin", "60d", "30d", "14d", "7d", "3d", "1d", "expired", *weeks]


def test_a_certificate_of_a_day_has_no_rungs() -> None:
    assert climbed(1, 1) == ["begin", "expired"]


def test_a_dst_day_has_no_rung_twice() -> None:
    """The rungs are counted in UTC: the day of 25 hours in Paris is a day as any other."""
    end = datetime(2025, 10, 27, 9, tzinfo=ZoneInfo("Europe/Paris"))
    seen = [
        rung(end - 365 * DAY, end, 35 * DAY, datetime(2025, 10, 20, tzinfo=UTC) + hour * DAY / 24)
        for hour in range(200)
    ]
    changes = [now for before, now in pairwise(seen) if now != before]
    assert changes == ["7d", "3d", "1d", "expired"]


def notice(event: str, *waiting: str) -> Notice:
    return Notice(event, "n", START, False, "", "", waiting=waiting)


def test_an_event_is_announced_once() -> None:
    known = decided((), notice("due-g1.30d", "a@x", "b@x"))
    assert decided(known, notice("due-g1.30d", "a@x", "b@x")) == known
    assert delivered(known, "due-g1.30d", "a@x") == (notice("due-g1.30d", "b@x"),)


def test_what_is_over_is_not_sent() -> None:
    """SMTP was down for two weeks: only what holds now is worth a mail."""
    known = decided((notice("due-g1.30d", "a@x"),), notice("due-g1.14d", "a@x"))
    assert known == (notice("due-g1.30d"), notice("due-g1.14d", "a@x"))


def test_the_record_stays_small() -> None:
    known: tuple[Notice, ...] = ()
    for week in range(1, 200):
        known = decided(known, notice(f"expired-g1.expired-{7 * week}d", "a@x"))
    assert len(known) == KEPT
    assert Counter(len(n.waiting) for n in known) == {0: KEPT - 1, 1: 1}
