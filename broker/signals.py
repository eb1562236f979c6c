"""Signals that ask this process to end: turn them into an exception, delay them until clean-up is done, wait for them.

`ASKING` are all signals that end a process by default, come from outside, and can be handled. Left out are:

- SIGKILL and SIGSTOP, which no process can handle;
- the faults of the process itself, such as SIGSEGV: no code of ours runs safely after one;
- signals that end nothing by default, or that Python ignores: for SIGPIPE and SIGXFSZ a write fails.

So Ctrl-C, Ctrl-\\, a closed window, `kill`, `timeout`, an alarm that was set before `exec`, the warnings of batch
systems (SIGUSR1, SIGUSR2, SIGXCPU) and a power failure have the same effect. A signal that was ignored when the process
started stays ignored.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Final

_LEFT_OUT: Final = "KILL STOP ABRT BUS FPE ILL SEGV SYS TRAP CHLD CONT PIPE TSTP TTIN TTOU URG WINCH XFSZ"
ASKING: Final = frozenset(map(int, signal.valid_signals() - {signal.Signals[f"SIG{n}"] for n in _LEFT_OUT.split()}))
_AGAIN: Final = 0.01  # seconds until a signal is sent again whose exception Python dropped
_GLANCE: Final = 0.2  # seconds between looks at news
LOOK: Final = 5.0  # seconds between looks at the clock: it may be set, or the machine may have slept


class AskedToEnd(KeyboardInterrupt):  # no error, as KeyboardInterrupt is none
    """A signal asked the process to end. As for Ctrl-C, clean-up runs."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Raise `AskedToEnd` in the block for each signal of `ASKING` that would end the process.

    A handler also runs inside finalizers and fork hooks, and Python drops what those raise. The signal is then sent
    again, by the timer: starting a thread could wait for a lock that the interrupted code holds.
    """
    dropped: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        raise AskedToEnd(dropped.pop() if dropped else number)

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, AskedToEnd):
            report(unraisable)
            return
        dropped.append(unraisable.exc_value.number)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    ending = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in _asking_to_end() if signal.getsignal(n) in ending}
    report = sys.unraisablehook
    for number in before:
        signal.signal(number, ask)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay the first signal that asks the process to end until the block has ended; a second takes effect immediately.

    For giving tokens back: they would live on for minutes. Only the main thread receives signals, so in any other
    thread nothing is delayed.
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
def held_back(more: frozenset[int] = frozenset()) -> Iterator[frozenset[int]]:
    """Keep signals that ask the process to end, and `more`, pending until the block has ended; yield them for the wait.

    The kernel keeps them, not a handler: a handler that sets a `threading.Event` takes the lock that the waiting main
    thread may hold, and never returns.
    """
    numbers = _asking_to_end() | more
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield numbers
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for_end(
    signals: frozenset[int], until: datetime, clock: Callable[[], datetime], news: threading.Event | None = None
) -> int:
    """Wait for a signal of `held_back`, and return its number; or for `news` or the time `until`, and return 0."""

    def pause(seconds: float) -> int:
        return came(signals, min(seconds, _GLANCE if news else LOOK))

    return paused(pause, until, clock, news.is_set if news else bool)


def came(signals: frozenset[int], seconds: float) -> int:
    """Wait for a signal of `held_back`, and return its number, or 0 after some seconds.

    A process that was stopped (SIGSTOP) past that time gets a structure from Python that nobody has filled:
    Modules/signalmodule.c, `signal_sigtimedwait_impl`, after EINTR.
    """
    found = signal.sigtimedwait(signals, seconds)
    return found.si_signo if found and found.si_signo in signals else 0


def paused(
    pause: Callable[[float], int], until: datetime, clock: Callable[[], datetime], over: Callable[[], bool]
) -> int:
    """Call `pause` with the seconds that are left until it returns a number, and return that; or until `over`: 0.

    It ends when the clock shows `until`, or when as much time has passed as was left at the start: a clock that
    is set back, or a machine that sleeps, makes no wait longer.
    """
    started, left = _uptime(), (until - clock()).total_seconds()
    while left > 0 and not over():
        if number := pause(left):
            return number
        passed = _uptime() - started
        left = min(left - passed, (until - clock()).total_seconds())
        started += passed
    return 0


def _asking_to_end() -> frozenset[int]:
    """Return `ASKING` without signals that are ignored (SIGHUP under `nohup`) or handled outside Python."""
    return frozenset(n for n in ASKING if signal.getsignal(n) not in (signal.SIG_IGN, None))


def _uptime() -> float:
    """Return the seconds since this machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
