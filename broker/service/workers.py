"""Run the service in several processes of one host. Each is a replica; one that ends is started again.

They share nothing but the address. The system spreads the connections to a port over their sockets, which the first
process keeps open, so connections wait while a worker is started again.
"""

import os
import signal
import socket
import threading
import time
from typing import Final

from msgspec import Struct

from broker.service.listeners import Address, Report, left
from broker.signals import held_back
from broker.systemd import State
from broker.telemetry import log

_AGAIN: Final = 1.0  # seconds until a worker that ended is started again


class Worker(Struct, frozen=True):
    """One of the processes: its number, from 0, and the socket that it accepts connections on."""

    number: int
    bound: socket.socket
    ready: int  # descriptor

    def report(self, state: State) -> None:
        """Tell the first process that this one listens."""
        if state is State.READY:
            os.write(self.ready, b"1")


def started(address: Address, count: int, report: Report) -> Worker | int:
    """Start the workers. Return in each of them, and in this process its exit code once all have ended.

    `report` is called once all listen, and when a signal asks this process to end. Raise `InputError`.
    """
    sockets = address.shared(count)
    file = left(address)
    with held_back() as asking:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        outcome = _Workers(sockets).run(asking | {signal.SIGCHLD}, report)
    if isinstance(outcome, int):
        file.remove()
    return outcome


class _Workers:
    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._running: dict[int, int] = {}  # number, by process
        self._lifeline = os.pipe()  # its end tells workers that this process has ended

    def run(self, signals: frozenset[int], report: Report) -> Worker | int:
        for number in range(len(self._sockets)):
            made = self._start(number)
            if isinstance(made, Worker):
                return made
            if not os.read(made, 1):  # it has said why
                return self._stop()
        report(State.READY)
        while signal.sigwait(signals) == signal.SIGCHLD:
            for number in self._ended():
                log.error("a worker ended, another one starts", worker=number)
                time.sleep(_AGAIN)
                made = self._start(number)
                if isinstance(made, Worker):
                    return made
        report(State.STOPPING)
        self._stop()
        return 0

    def _start(self, number: int) -> Worker | int:
        """Return in the new process; in this one return a descriptor that says when it listens."""
        ready, tell = os.pipe()
        pid = os.fork()
        if pid:
            os.close(tell)
            self._running[pid] = number
            return ready
        os.close(self._lifeline[1])
        threading.Thread(target=_end_with, args=(self._lifeline[0],), daemon=True).start()
        for other in self._sockets:
            if other is not self._sockets[number]:
                other.close()
        return Worker(number, self._sockets[number], tell)

    def _ended(self) -> list[int]:
        """Return the numbers of workers that have ended."""
        found = []
        while self._running:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            found.append(self._running.pop(pid))
        return found

    def _stop(self) -> int:
        """End all workers; return the exit code of the first that ends."""
        for bound in self._sockets:
            bound.close()
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        codes = []
        while self._running:
            pid, status = os.wait()
            del self._running[pid]
            codes.append(os.waitstatus_to_exitcode(status))
        return codes[0]


def _end_with(lifeline: int) -> None:
    """End this process once the first one has ended, however that was."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
