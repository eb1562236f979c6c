"""Windows and freezes of the configuration: at changes of the clocks, on leap days, and every mistake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import InputError
from broker.model.maintenance import Maintenance, Opening
from broker.windows import maintenance

HOUR = timedelta(hours=1)
SUNDAY = {"cron": "30 2 * * SUN", "timezone": "Europe/Paris", "duration": "2h"}


def of(**own: str) -> Maintenance:
    return maintenance({"w": own}, {})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opens(found: Maintenance, at: str) -> datetime | None:
    opening = found.opening(utc(at), utc(at) + timedelta(days=10 * 366))
    return opening.at if opening else None


def test_a_window_opens_by_its_time_zone() -> None:
    found = of(**SUNDAY)
    assert opens(found, "2026-01-01") == utc("2026-01-04T01:30")
    assert opens(found, "2026-07-01") == utc("2026-07-05T00:30")


def test_window_is_open_for_its_duration() -> None:
    found = of(**SUNDAY)
    assert opens(found, "2026-01-04T03:29:59") == utc("2026-01-04T03:29:59")
    assert opens(found, "2026-01-04T03:30") == utc("2026-01-11T01:30")


def test_window_in_the_skipped_hour_opens_later() -> None:
    """On 2026-03-29 in Paris, 02:00 is followed by 03:00."""
    found = of(**SUNDAY)
    assert opens(found, "2026-03-28T12:00") == utc("2026-03-29T01:00")
    assert opens(found, "2026-03-29T02:59") == utc("2026-03-29T02:59"), "for two hours"
    assert opens(found, "2026-03-29T03:00") == utc("2026-04-05T00:30")


def test_a_window_in_the_doubled_hour_opens_once() -> None:
    """On 2026-10-25 in Paris, 02:30 comes at 00:30 and at 01:30 UTC."""
    found = of(**SUNDAY)
    assert opens(found, "2026-10-24T12:00") == utc("2026-10-25T00:30")
    assert opens(found, "2026-10-25T02:30") == utc("2026-11-01T01:30")


@pytest.mark.parametrize(("cron", "at", "opening"), [
    ("0 3 29 2 *", "2026-01-01", "2028-02-29T03:00"),
    ("0 3 L 2 *", "2026-01-01", "2026-02-28T03:00"),
    ("0 3 * * 1#1", "2026-01-02", "2026-01-05T03:00"),
    ("0 3 1 1 *", "2062-06-01", "2063-01-01T03:00"),
])  # fmt: skip
def test_cron_expressions(cron: str, at: str, opening: str) -> None:
    assert opens(of(cron=cron, duration="1h"), at) == utc(opening)


def test_nothing_opens_after_the_last_year() -> None:
    assert (
        of(**SUNDAY | {"timezone": "Asia/Tokyo"}).opening(utc("9999-12-30"), datetime.max.replace(tzinfo=UTC)) is None
    )


def test_freeze_lasts_whole_days_in_its_zone() -> None:
    found = maintenance({}, {"f": {"from": "2026-12-15", "until": "2027-01-05", "timezone": "Europe/Paris"}})
    assert found.opening(utc("2026-12-14T22:59"), utc("2027-06-01")) == Opening(utc("2026-12-14T22:59"), "")
    assert opens(found, "2026-12-14T23:00") == utc("2027-01-05T23:00")


def test_window_is_open_until_a_freeze_begins() -> None:
    window = {"cron": "0 12 14 12 *", "duration": "1d"}
    found = maintenance({"w": window}, {"f": {"from": "2026-12-15", "until": "2026-12-15"}})
    assert opens(found, "2026-12-14T12:00") == utc("2026-12-14T12:00")
    assert opens(found, "2026-12-15T10:00") == utc("2027-12-14T12:00"), "what is left of the window is frozen"


def test_the_earliest_of_several_windows_wins() -> None:
    found = maintenance({"a": SUNDAY, "b": {"cron": "0 3 1 * *", "duration": "1h"}}, {})
    assert found.opening(utc("2026-01-29"), utc("2026-03-01")) == Opening(utc("2026-02-01T01:30"), "a")
    assert found.opening(utc("2026-02-25"), utc("2026-04-01")) == Opening(utc("2026-03-01T01:30"), "a")
    assert found.opening(utc("2026-03-29T12:00"), utc("2026-05-01")) == Opening(utc("2026-04-01T03:00"), "b")


def test_the_longest_wait_counts_freezes() -> None:
    freezes = {"f": {"from": "2026-12-01", "until": "2026-12-31"}}
    start, end = maintenance({"w": SUNDAY}, freezes).longest_wait(utc("2026-10-01"), utc("2027-10-01"))
    assert (start, end) == (utc("2026-11-29T03:30"), utc("2027-01-03T01:30"))
    start, end = maintenance({}, freezes).longest_wait(utc("2026-10-01"), utc("2027-10-01"))
    assert (start, end) == (utc("2026-12-01"), utc("2027-01-01"))
    assert Maintenance().longest_wait(utc("2026-10-01"), utc("2027-10-01"))[1] == utc("2026-10-01")


@pytest.mark.parametrize(("own", "words"), [
    ({"duration": "1h"}, "cron is missing"),
    ({"cron": "0 3 * * SUN"}, "duration is missing"),
    ({"cron": "0 3 * *", "duration": "1h"}, "not a cron expression of five fields"),
    ({"cron": "0 0 3 * * SUN", "duration": "1h"}, "not a cron expression of five fields"),
    ({"cron": "@daily", "duration": "1h"}, "not a cron expression of five fields"),
    ({"cron": "0 25 * * *", "duration": "1h"}, "Bad hour"),
    ({"cron": "0 3 30 2 *", "duration": "1h"}, "Bad day-of-month"),
    ({"cron": "0 3 */0 * *", "duration": "1h"}, "Bad day-of-month"),
    ({"cron": "0 3 L/2-3 * *", "duration": "1h"}, "not a cron expression"),
    ({"cron": "* * * * *", "duration": "1h"}, "more often than every hour"),
    ({"cron": "*/30 * 1 1 *", "duration": "1h"}, "more often than every hour"),
    ({"cron": "0 3 * * SUN", "duration": "1m"}, "too short or too long"),
    ({"cron": "0 3 * * SUN", "duration": "8d"}, "too short or too long"),
    ({"cron": "0 3 * * SUN", "duration": "long"}, "is not a duration"),
    ({"cron": "0 3 * * SUN", "duration": "1h", "timezone": "Mars/Base"}, "is not a time zone"),
    ({"cron": "0 3 * * SUN", "duration": "1h", "timezone": "../etc/passwd"}, "is not a time zone"),
    ({"cron": "0 3 * * SUN", "duration": "1h", "timezone": "Europe"}, "is not a time zone"),
    ({"cron": "0 3 * * SUN", "duration": "1h", "timezone": "\0"}, "is not a time zone"),
])  # fmt: skip
def test_a_bad_window_is_refused(own: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as refused:
        of(**own)
    assert refused.value.message.startswith("[rotation.windows.w]: ")
    assert words in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(("own", "words"), [
    ({"until": "2027-01-05"}, "from is missing"),
    ({"from": "2026-12-15"}, "until is missing"),
    ({"from": "2026-12-15", "until": "2026-12-14"}, "before it begins"),
    ({"from": "2026-02-29", "until": "2026-12-14"}, "is not a date"),
    ({"from": "2026-12-15 10:00:00", "until": "2026-12-14"}, "is not a date"),
    ({"from": "9999-12-31", "until": "9999-12-31"}, "is far away"),
    ({"from": "2026-12-15", "until": "2027-01-05", "timezone": ""}, "is not a time zone"),
])  # fmt: skip
def test_a_bad_freeze_is_refused(own: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as refused:
        maintenance({}, {"f": own})
    assert refused.value.message.startswith("[rotation.freezes.f]: ")
    assert words in refused.value.message
