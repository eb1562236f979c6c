"""The two quotas: a sliding day and a one-second burst, counted per application."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

DAY_LIMIT: Final = 1_000_000  # high, so that only a fault or a real flood reaches it
BURST_LIMIT: Final = 100_000
DAY: Final = (86_400.0, 60.0)  # window and bucket, in seconds
BURST: Final = (1.0, 0.05)


@dataclass(frozen=True, slots=True)
class Usage:
    """A window after a request was counted. `reset` is in seconds, 0 if the request fits."""

    limit: int
    remaining: int
    reset: int


class Quota:
    """Count the requests of each application. Thread-safe."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}

    def count(self, client: str, *, day: int | None, burst: int | None) -> tuple[Usage, Usage]:
        """Count one request of `client`; it is refused if a `reset` is above 0. None is the default limit."""
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
    """A sliding window of `seconds`, in buckets of `step` seconds."""

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
