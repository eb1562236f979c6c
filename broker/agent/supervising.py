"""Run a program beside the files of a bundle: signals pass through, its exit code is kept, a rotation reaches it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

from msgspec import Struct

from broker.agent.holding import Held
from broker.errors import BrokerError
from broker.signals import held_back
from broker.telemetry import log

SIGNALLED: Final = 128  # plus the number of the signal that ended the program, as a shell says it
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as env(1) says it
_PATIENCE: Final = 10.0  # seconds from SIGTERM to SIGKILL, if a program is restarted
_GLANCE: Final = 0.02  # seconds between looks at a group of processes that ends
_PASSED: Final = frozenset(map(int, (signal.SIGCONT, signal.SIGTSTP, signal.SIGWINCH)))  # beside those that ask to end
_REPEATED: Final = (0, signal.SIGKILL)  # sent again and again to a program that does not end
_RESET: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # which Python ignores


class Program(Struct, frozen=True):
    """A command line, and its whole environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    on_rotation: int = 0  # the signal that a rotation sends; SIGTERM restarts it


class NotStartedError(Exception):
    """The program cannot be run. `code` is 127 if there is none, else 126."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"{error.filename}: {(error.strerror or 'it cannot be run').lower()}")
        self.code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE


def replaced_by(program: Program) -> NoReturn:
    """Become `program`; return only by raising `NotStartedError`."""
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(program.arguments[0], list(program.arguments), dict(program.environment))  # noqa: S606  # no shell: asked for
    except OSError as error:
        error.filename = program.arguments[0]
        raise NotStartedError(error) from None


def supervised(held: Held, program: Program) -> int:
    """Run `program` to its end beside the published files of `held`; return its exit code.

    If lease or right ends before the program, the files are withdrawn and it goes on: it may hold copies.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with held_back(_PASSED | {int(signal.SIGCHLD)}) as signals:
        child = _Child(program, mask)
        held.followed = child.rotated
        try:
            while True:
                number = held.follow(signals)
                if not number:
                    break
                if child.ended_by(number):
                    return child.code
        except BrokerError as error:
            log.info("the bundle ended before the program", reason=error.message)
        with suppress(BrokerError):
            held.withdraw()
        while not child.ended_by(signal.sigwait(signals)):
            pass
        return child.code


class _Child:
    """The program, in a process group of its own, which has the terminal if we had it."""

    def __init__(self, program: Program, mask: Collection[int]) -> None:
        self._program, self._mask = program, mask
        self._has_terminal = sys.stdin.isatty() and os.tcgetpgrp(0) == os.getpgrp()
        self.code = 0
        self._is_reaped = False
        self._start()

    def _start(self) -> None:
        program = self._program
        try:
            self._pid = os.posix_spawnp(
                program.arguments[0],
                list(program.arguments),
                dict(program.environment),
                setpgroup=0,
                setsigmask=self._mask,
                setsigdef=_RESET,
            )
        except OSError as error:
            error.filename = program.arguments[0]
            raise NotStartedError(error) from None
        self._is_reaped = False
        threading.Thread(target=_announced, args=(self._pid, threading.get_ident()), daemon=True).start()
        self._lend_terminal(self._pid)

    def ended_by(self, number: int) -> bool:
        """Take a signal: pass it on, or look whether the program has ended."""
        if number != signal.SIGCHLD:
            self._send(number)
            return False
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                return False
            if not os.WIFSTOPPED(status):
                break
            if self._has_terminal or os.WSTOPSIG(status) == signal.SIGTSTP:
                self._stop_too()  # without a terminal nobody would continue us
        self._is_reaped = True
        self._lend_terminal(os.getpgrp())
        code = os.waitstatus_to_exitcode(status)
        self.code = SIGNALLED - code if code < 0 else code
        return True

    def rotated(self) -> None:
        """Let the program know of another generation, once: by its signal, or by a new start."""
        number = self._program.on_rotation
        if number != signal.SIGTERM:
            self._send(number)
            return
        if self._end():
            self._start()
        else:
            log.error("the program was not restarted: it cannot be ended")

    def _end(self) -> bool:
        """End the group: none of it may meet the next start. Return False if it cannot be ended."""
        self._send(signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        while self._lives():
            if time.monotonic() > until:
                self._send(signal.SIGKILL)
            if time.monotonic() > until + _PATIENCE:
                return False
            time.sleep(_GLANCE)
        return True

    def _lives(self) -> bool:
        """Return whether one of the group lives. In a container whose init we are, its orphans are ours to reap."""
        for number in (-self._pid, self._pid):  # the program may have left its group
            with suppress(ChildProcessError):
                while not self._is_reaped or number < 0:
                    found = os.waitpid(number, os.WNOHANG)[0]
                    if not found:
                        break
                    self._is_reaped |= found == self._pid
        return self._send(0)

    def _send(self, number: int) -> bool:
        """Send a signal to the group, or to a program that has left it; return whether there is anything to send to."""
        try:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, number)
                return True
            if not self._is_reaped:
                os.kill(self._pid, number)
        except PermissionError:
            if number not in _REPEATED:
                log.info("the program was not signalled: it runs as another user", signal=number)
            return True
        return not self._is_reaped

    def _stop_too(self) -> None:
        """Stop as the program did (Ctrl-Z), and go on with it."""
        self._lend_terminal(os.getpgrp())
        os.kill(os.getpid(), signal.SIGSTOP)
        self._lend_terminal(self._pid)
        self._send(signal.SIGCONT)

    def _lend_terminal(self, group: int) -> None:
        if not self._has_terminal:
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # it would stop a group in the background
        try:
            with suppress(OSError):
                os.tcsetpgrp(0, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _announced(pid: int, waiting: int) -> None:
    """Send SIGCHLD to the thread that waits when the program has ended: the kernel may give its own to another."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    signal.pthread_kill(waiting, signal.SIGCHLD)
