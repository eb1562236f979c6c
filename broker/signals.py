"""Delay signals until clean-up is done, and wait for them without a handler."""

from __future__ import annotations

import signal
import threading
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
    """Let a first signal that asks the process to end wait until the block has ended; a second takes effect at once.

    Tokens are given back here, and one that was not would live on for minutes. Only the main thread hears signals: in
    any other nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in _asking_to_end()}

    def keep(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

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
    thread may hold, and never returns.
    """
    numbers = _asking_to_end()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield numbers
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


def _asking_to_end() -> frozenset[signal.Signals]:
    """Return what asks a process to end; SIGHUP is left alone where it is ignored, as under `nohup`."""
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return frozenset(number for number in asking if signal.getsignal(number) is not signal.SIG_IGN)


def _uptime() -> float:
    """Return the seconds since this machine started, those that it slept too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
