"""Signals that ask this process to end: turn them into an exception, delay them until clean-up is done, wait for them.

`ASKING` are all signals that end a process by default, come from outside, and can be handled. Left out are:

- SIGKILL and SIGSTOP, which no process can handle;
- the faults of the process itself (`_FAULTS`): no code of ours runs safely after one;
- signals that end nothing by default, or that Python ignores (`_HARMLESS`): for SIGPIPE and SIGXFSZ a write fails.

So Ctrl-C, Ctrl-\\, a closed window, `kill`, `timeout`, an alarm that was set before `exec`, the warnings of batch
systems (SIGUSR1, SIGUSR2, SIGXCPU) and a power failure are one thing. A signal that was ignored when we were started
stays ignored.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Final

__all__ = ["ASKING", "AskedToEnd", "held_back", "raised", "undisturbed", "wait_for_end"]

_FAULTS: Final = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_HARMLESS: Final = frozenset(
    {
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGPIPE,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGXFSZ,
    }
)
ASKING: Final = frozenset(map(int, signal.valid_signals() - _FAULTS - _HARMLESS - {signal.SIGKILL, signal.SIGSTOP}))

_LOOK: Final = 5.0  # seconds between looks at the clock, which may have been set, or have run on while we slept


class AskedToEnd(KeyboardInterrupt):  # no error, as KeyboardInterrupt is none
    """A signal asked the process to end: as Ctrl-C does, so that clean-up runs."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Raise `AskedToEnd` in the block for each signal of `ASKING` that would else end the process."""

    def ask(number: int, _frame: FrameType | None) -> None:
        raise AskedToEnd(number)

    ending = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in _asking_to_end() if signal.getsignal(n) in ending}
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
            signal.signal(number, before[number])
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


def _asking_to_end() -> frozenset[int]:
    """Return `ASKING` without what is ignored, as SIGHUP under `nohup`, or has a handler that is not Python's."""
    return frozenset(n for n in ASKING if signal.getsignal(n) not in (signal.SIG_IGN, None))


def _uptime() -> float:
    """Return the seconds since this machine started, those that it slept too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
