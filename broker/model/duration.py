"""Durations as people write them: `30d 10h 15m`."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

from broker.errors import InputError

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SHARE: Final = re.compile(r"([1-9][0-9]?)%", re.ASCII)
_SHAPE: Final = re.compile(r"(?:(\d{1,6})d)? ?(?:(\d{1,6})h)? ?(?:(\d{1,6})m)? ?(?:(\d{1,6})s)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Return the duration in `text`: days, hours, minutes and seconds, in this order, each at most once.

    Raises `InputError` for anything else, an empty text and zero included.
    """
    match = _SHAPE.fullmatch(text.strip())
    parts = {} if match is None else {u: int(n) for u, n in zip(_UNITS.values(), match.groups(), strict=True) if n}
    duration = timedelta(**parts)
    if not duration:
        raise InputError(f"{text[:40]!r} is not a duration", hint="write one like 30d, 10h 15m or 90s")
    return duration


def part_of(whole: timedelta, text: str) -> timedelta:
    """Return a part of `whole`: "20%" of it, or a duration such as "30d". Raise `InputError` for anything else."""
    share = _SHARE.fullmatch(text)
    if share is None and "%" in text:
        raise InputError(f"{text[:40]!r} is not a share", hint="write one from 1% to 99%")
    return whole * (int(share[1]) / 100) if share else parse_duration(text)


@lru_cache(maxsize=1024)  # plans name few durations, and each often
def duration_text(duration: timedelta) -> str:
    """Return `duration` as `parse_duration` reads it, whole seconds only."""
    rest = int(duration.total_seconds())
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, size)
        if amount:
            words.append(f"{amount}{unit}")
    return " ".join(words) or "0s"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun: "1 entry", "2 entries"; `many` is `one` with an s unless it is given."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def age_text(age: timedelta) -> str:
    """Return an age in its largest unit: "3 days", "1 hour", "less than a minute"."""
    seconds = int(abs(age).total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return counted(seconds // size, unit)
    return "less than a minute"
