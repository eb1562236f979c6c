"""Durations as people type them: `30d`, `1d12h`, `90s`, plain seconds, with an optional sign."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dhms])")
SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
MOST_LETTERS: Final = 24
LONGEST: Final = 36_525 * 86_400.0


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` names; a number without a unit is in seconds. Raise `ValueError`."""
    signless = text.strip().lower().removeprefix("-")
    sign = -1 if text.strip().startswith("-") else 1
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", signless):
        return sign * timedelta(seconds=float(signless))
    squeezed = signless.replace(" ", "")
    parts = PART.findall(squeezed)
    if not parts or "".join(number + unit for number, unit in parts) != squeezed or len(squeezed) > MOST_LETTERS:
        raise ValueError(f"{text!r} is not a duration: write 30d, 1d12h, 15m or 90s")
    total = sum((float(number) * SECONDS[unit] for number, unit in parts), 0.0)
    if total > LONGEST:
        raise ValueError(f"{text!r} is more than a hundred years")
    return sign * timedelta(seconds=total)
