"""The two quotas: a sliding day and a one-second burst, counted per application."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

__all__ = ["Quota", "Usage"]

DAY_LIMIT: Final = 1_000_000  # generous, so that only a switched fault or a real flood meets it
BURST_LIMIT: Final = 100_000
DAY: Final = (86_400.0, 60.0)  # window and bucket, in seconds
BURST: Final = (1.0, 0.05)


@dataclass(frozen=True, slots=True)
class Usage:
    """One window after a request was counted. `reset` is in seconds, 0 while there is room."""

    limit: int
    remaining: int
    reset: int


class Quota:
    """Counts requests of each application. Any thread may count."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}

    def count(self, client: str, *, day: int | None, burst: int | None) -> tuple[Usage, Usage]:
        """Count one request of `client`, refused where a `reset` is above 0; None is the ordinary limit."""
        now = self._clock().timestamp()
        with self._lock:
            daily = self._windows.setdefault((client, "day"), _Window(*DAY))
            short = self._windows.setdefault((client, "burst"), _Window(*BURST))
            standings = (
                daily.standing(now, DAY_LIMIT if day is None else day),
                short.standing(now, BURST_LIMIT if burst is None else burst),
            )
            if not any(standing.reset for standing in standings):
                daily.add(now)
                short.add(now)
            return standings


class _Window:
    """A sliding window in buckets: `seconds` long, `step` fine."""

    def __init__(self, seconds: float, step: float) -> None:
        self._seconds = seconds
        self._step = step
        self._buckets: dict[int, int] = {}

    def add(self, now: float) -> None:
        bucket = int(now / self._step)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def standing(self, now: float, limit: int) -> Usage:
        oldest = int((now - self._seconds) / self._step)
        for bucket in [bucket for bucket in self._buckets if bucket <= oldest]:
            del self._buckets[bucket]
        used = sum(self._buckets.values())
        if used < limit:
            return Usage(limit, limit - used - 1, 0)
        first = min(self._buckets, default=int(now / self._step))
        return Usage(limit, 0, max(1, round((first + 1) * self._step + self._seconds - now)))
