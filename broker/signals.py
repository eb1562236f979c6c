"""What is asked to end ends in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Final

__all__ = ["held_back", "undisturbed", "wait_for_end"]

_LOOK: Final = 5.0  # seconds between looks at the clock, which may have been set, or have run on while we slept


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a first SIGINT or SIGTERM wait until the block has ended; a second one takes effect at once.

    For the main thread: tokens are given back here, and one that was not would live on for minutes.
    """
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def keep(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        handler = before[signal.Signals(number)]
        if len(waiting) > 1 and callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


@contextmanager
def held_back() -> Iterator[frozenset[int]]:
    """Keep what asks a process to end pending until the block has ended; yield those signals, for `wait_for_end`.

    The kernel keeps them, not a handler: one that sets a `threading.Event` takes the very lock that the waiting main
    thread may hold, and never returns. SIGHUP is left alone where it is ignored, as under `nohup`.
    """
    numbers = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.add(signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield frozenset(numbers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for_end(signals: frozenset[int], until: datetime, clock: Callable[[], datetime]) -> bool:
    """Wait until a signal of `held_back` comes, then return True; or until `until` has come, then return False.

    `until` has come when the clock says so, or when as much time has passed as lay before it at the start: a clock
    that is set back, or a machine that sleeps, makes no wait longer.
    """
    started, left = _uptime(), (until - clock()).total_seconds()
    while left > 0:
        if signal.sigtimedwait(signals, min(left, _LOOK)) is not None:
            return True
        passed = _uptime() - started
        left = min(left - passed, (until - clock()).total_seconds())
        started += passed
    return False


def _uptime() -> float:
    """Return the seconds since this machine started, those that it slept too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
