"""Signals that ask a process to end take effect at any time; a wait ends on time by any clock."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker import signals
from broker.signals import ASKING, AskedToEnd, came, held_back, raised, undisturbed, wait_for_end
from tests.support.depth import sampled

EARLY = """
import os, signal, sys
signal.signal(int(sys.argv[1]), signal.SIG_DFL)  # our starter may have ignored it

class Asked:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), int(sys.argv[1]))

sys.meta_path.insert(0, Asked())
from broker.__main__ import main
main()
"""
ENDING = """
import os, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for number in sorted(signal.valid_signals()):
    child = os.fork()
    if not child:
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif os.WIFSIGNALED(status):
        print(int(number))
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Shows `START` plus each of `seconds`, then repeats the last one."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)

    def __call__(self) -> datetime:
        now = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return START + timedelta(seconds=now)


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Signals that reached a handler, in order."""
    got: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _: got.append(n)) for number in numbers}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_a_finalizer_is_not_lost(number: signal.Signals) -> None:
    script = f"from tests.test_signals import drop\ndrop({int(number)})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{int(number)}\n", "")


def drop(number: int) -> None:
    """Receive a signal inside a finalizer, where Python drops exceptions; print the one that arrives afterwards."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(number)

    signal.signal(number, signal.SIG_DFL)  # this process may have been started with it ignored
    try:
        with raised():
            Finalized()
            time.sleep(20)
    except AskedToEnd as asked:
        print(asked.number)  # noqa: T201


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_earlier_signal_ends_the_wait(heard: list[int], number: signal.Signals) -> None:
    with held_back() as waiting:
        signal.raise_signal(number)
        assert wait_for_end(waiting, START + timedelta(hours=1), Clock(0))
    assert heard == []


def test_second_signal_after_the_block(heard: list[int]) -> None:
    with held_back() as waiting:
        signal.raise_signal(signal.SIGTERM)
        assert wait_for_end(waiting, START + timedelta(hours=1), Clock(0))
        signal.raise_signal(signal.SIGINT)
        assert heard == []
    assert heard == [signal.SIGINT]


def test_ignored_hang_up_is_not_waited_for(heard: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with held_back() as waiting:
        assert signal.SIGHUP not in waiting
        assert signal.SIGTERM in waiting


def test_past_time_is_not_waited_for(heard: list[int]) -> None:
    with held_back() as waiting:
        assert not wait_for_end(waiting, START, Clock(0))


def test_an_unfilled_answer_is_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python gives one to a process that was stopped past the end of its wait."""
    monkeypatch.setattr(signal, "sigtimedwait", lambda *_: signal.struct_siginfo([2065970208, *[0] * 6]))
    assert came(frozenset({15}), 0.1) == 0


def test_clock_ahead_ends_the_wait(heard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "LOOK", 0.01)
    with held_back() as waiting:
        assert not wait_for_end(waiting, START + timedelta(hours=1), Clock(0, 1, 3601))


def test_clock_set_back_prolongs_no_wait(heard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "LOOK", 0.01)
    with held_back() as waiting:
        assert not wait_for_end(waiting, START + timedelta(seconds=0.1), Clock(0, -3600))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_first_signal_waits_for_the_block(heard: list[int], number: signal.Signals) -> None:
    with undisturbed():
        signal.raise_signal(number)
        assert heard == []
    assert heard == [number]


def test_ignored_hang_up_stays_ignored(heard: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with undisturbed():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_work_undisturbed() -> None:
    done: list[bool] = []

    def work() -> None:
        with undisturbed():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_second_signal_does_not_wait(heard: list[int]) -> None:
    with undisturbed():
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]
    assert heard[-1] == signal.SIGTERM


def test_asking_are_the_signals_that_end_us() -> None:
    """The kernel says which end a process. Of those, only faults of our own and what Python ignores are left out."""
    ended = subprocess.run([sys.executable, "-S", "-c", ENDING], capture_output=True, text=True, check=True)
    left_out = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS}
    left_out |= {signal.SIGTRAP, signal.SIGKILL, signal.SIGPIPE, signal.SIGXFSZ}
    assert set(map(int, ended.stdout.split())) == ASKING | left_out


@pytest.fixture
def ends_us() -> Iterator[signal.Signals]:
    """A signal that ends this process unless it is handled."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    yield signal.SIGQUIT
    signal.signal(signal.SIGQUIT, before)


def test_ending_signal_is_raised(ends_us: signal.Signals) -> None:
    with pytest.raises(AskedToEnd) as caught, raised():
        signal.raise_signal(ends_us)
    assert caught.value.number == ends_us
    assert signal.getsignal(ends_us) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored(ends_us: signal.Signals) -> None:
    signal.signal(ends_us, signal.SIG_IGN)
    with raised():
        signal.raise_signal(ends_us)


@pytest.mark.parametrize(
    "number",
    sampled([*map(signal.Signals, (1, 2, 3, 10, 15, 24)), int(signal.SIGRTMAX)], every=4, rest=pytest.mark.slow),
)
def test_signal_while_loading_is_reported(number: int) -> None:
    command = [sys.executable, "-c", EARLY, str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (128 + number, "")
    assert ended.stderr == "\ninterrupted; run the command again to finish what it began\n"
