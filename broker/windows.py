"""Maintenance windows and freezes, as the configuration has them.

At a change of the clocks a window opens as Debian's cron runs a job: one in a skipped hour opens right after it, one in
a doubled hour opens once. Its duration is elapsed time.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import islice
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from broker.errors import InputError
from broker.model.duration import parse_duration
from broker.model.maintenance import Freeze, Maintenance, Window

_FIELDS: Final = 5  # minute, hour, day of month, month, day of week
_EXAMPLE: Final = 'cron = "0 3 * * SUN"  # Sundays at three'
_ANY: Final = datetime(2024, 1, 1, tzinfo=UTC)  # a leap year
_SHORTEST: Final = timedelta(minutes=10)
_LONGEST: Final = timedelta(days=7)
_OFTEN: Final = 25  # openings in a day that are too many
_DAY: Final = timedelta(days=1)

Tables = Mapping[str, Mapping[str, str]]
T = TypeVar("T")


def maintenance(windows: Tables, freezes: Tables) -> Maintenance:
    """Return the windows and freezes of the tables `[rotation.windows.NAME]` and `[rotation.freezes.NAME]`.

    Raise `InputError`, naming the table.
    """
    return Maintenance(tuple(_made(windows, "windows", _window)), tuple(_made(freezes, "freezes", _freeze)))


def _made(tables: Tables, kind: str, make: Callable[[str, Mapping[str, str]], T]) -> Iterator[T]:
    for name, own in tables.items():
        try:
            yield make(name, own)
        except InputError as error:
            raise InputError(f"[rotation.{kind}.{name}]: {error.message}", hint=error.hint) from None


def _window(name: str, own: Mapping[str, str]) -> Window:
    cron, zone, length = _required(own, "cron", _EXAMPLE), _zone(own), _required(own, "duration", 'duration = "2h"')
    if len(cron.split()) != _FIELDS:
        raise InputError(f"{cron[:80]!r} is not a cron expression of five fields", hint=f"write one like {_EXAMPLE}")
    try:
        first = list(islice(_openings(cron, zone)(_ANY), _OFTEN))
    except (CronSimError, ValueError, AssertionError) as error:  # AssertionError: of cronsim, for "L/2" and the like
        raise InputError(
            f"{cron[:80]!r} is not a cron expression: {error}", hint=f"write one like {_EXAMPLE}"
        ) from None
    lasts = parse_duration(length)
    if not first:
        raise InputError(f"{cron!r} never comes", hint=f"write one like {_EXAMPLE}")
    if len(first) == _OFTEN and first[-1] - first[0] < _DAY:
        raise InputError(
            f"{cron!r} opens more often than every hour", hint="make the window longer, and open it less often"
        )
    if not _SHORTEST <= lasts <= _LONGEST:
        raise InputError(f"a window of {length} is too short or too long", hint="between 10m and 7d")
    return Window(name, _openings(cron, zone), lasts)


def _openings(cron: str, zone: tzinfo) -> Callable[[datetime], Iterator[datetime]]:
    def after(at: datetime) -> Iterator[datetime]:
        try:
            for start in CronSim(cron, at.astimezone(zone)):
                yield start.astimezone(UTC)
        except OverflowError:  # after the year 9999
            return

    return after


def _freeze(name: str, own: Mapping[str, str]) -> Freeze:
    zone = _zone(own)
    first, last = (_date(_required(own, key, f'{key} = "2026-12-15"')) for key in ("from", "until"))
    if last < first:
        raise InputError(f"it ends on {last}, before it begins", hint="until is the last day of the freeze")
    return Freeze(name, _midnight(first, zone), _midnight(last + _DAY, zone), own.get("reason", ""))


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text[:40]!r} is not a date", hint="write it as 2026-12-15") from None
    if not 2000 <= day.year < 9000:  # noqa: PLR2004  # in any zone, it has a next day
        raise InputError(f"{text} is far away", hint="write it as 2026-12-15")
    return day


def _zone(own: Mapping[str, str]) -> tzinfo:
    name = own.get("timezone", "UTC")
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: "Europe" is a directory
        raise InputError(f"{name[:80]!r} is not a time zone", hint='timezone = "Europe/Paris", for example') from None


def _required(own: Mapping[str, str], key: str, example: str) -> str:
    if not own.get(key):
        raise InputError(f"{key} is missing", hint=example)
    return own[key]
