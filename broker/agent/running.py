"""The agent: all bundles of the configuration, each in a thread, until a signal or another end that is asked for."""

import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Final

from broker.agent.following import Follower
from broker.agent.health import Health
from broker.agent.tables import BundleTable
from broker.errors import BrokerError, InputError
from broker.signals import came
from broker.systemd import State
from broker.telemetry import log

_LOOK: Final = 0.1  # seconds between two looks at the files, until they are there first
_IDLE: Final = 60.0  # seconds between two looks afterwards

Report = Callable[[State | str], None]  # a state, or a line about the bundles


class Agent:
    """The bundles that `tables` names. `make` makes the follower of one, `report` speaks to the service manager."""

    def __init__(
        self, make: Callable[[BundleTable], Follower], tables: Callable[[], Sequence[BundleTable]], report: Report
    ) -> None:
        self._make, self._tables, self._report = make, tables, report
        self._followers: dict[str, Follower] = {}
        self._quit = threading.Event()
        self._main = threading.main_thread().ident
        self.health = Health(lambda: tuple(self._followers.values()))

    def run(self, signals: frozenset[int], watchdog: float = 0, listen: Callable[[], None] = lambda: None) -> None:
        """Keep all bundles current until one of `signals`, which are held back in every thread; then remove them.

        Report to a watchdog twice in its seconds. `listen` is called a moment after the bundles are asked for.
        """
        self._follow(self._tables())
        try:
            self._watch(signals, watchdog / 2, listen)
        finally:
            self._report(State.STOPPING)
            self._end(list(self._followers.values()))
            while came(signals, 0):  # it has ended as they ask
                pass

    def quit(self) -> None:
        """End, from another thread."""
        self._quit.set()
        if self._main:
            signal.pthread_kill(self._main, signal.SIGTERM)  # to end its wait

    def quit_after(self, pid: int) -> None:
        """End when the process `pid` has ended; raise `InputError`."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise InputError(f"process {pid} cannot be watched: {reason}", hint="give the PID of a process") from None

        def watch() -> None:
            select.select([descriptor], [], [])
            self.quit()

        threading.Thread(target=watch, name="until", daemon=True).start()

    def _watch(self, signals: frozenset[int], pulse: float, listen: Callable[[], None]) -> None:
        is_listening, is_ready, said = False, False, ""
        while not self._quit.is_set():
            number = came(signals, min(pulse or _IDLE, _IDLE if is_ready else _LOOK))
            if not is_listening:
                is_listening = True
                listen()
            if number == signal.SIGHUP:
                self._report(State.RELOADING)
                self._reload()
                is_ready = False
            elif number:
                log.info("asked to end", signal=signal.Signals(number).name)
                return
            becomes_ready = not is_ready and self.health.is_started
            if (line := self.health.line) != said:
                said = line
                self._report(line)
            if becomes_ready:
                is_ready = True
                self._report(State.READY)
            if pulse and self.health.is_alive:
                self._report(State.WATCHDOG)

    def _reload(self) -> None:
        """Read the configuration again. A bundle whose table is the same goes on."""
        try:
            self._follow(self._tables())
        except BrokerError as error:
            log.error("the configuration was not taken", reason=error.message, hint=error.hint)

    def _follow(self, tables: Sequence[BundleTable]) -> None:
        wanted = {table.name: table for table in tables}
        over = [one for name, one in self._followers.items() if wanted.get(name) != one.table]
        self._end(over)
        for one in over:
            del self._followers[one.table.name]
        new = {name: self._make(table) for name, table in wanted.items() if name not in self._followers}
        self._followers |= new  # before the first starts, so that health knows them all
        for one in new.values():
            one.start()

    def _end(self, followers: Sequence[Follower]) -> None:
        for one in followers:
            one.stop()
        for one in followers:
            one.join()


def once(followers: Sequence[Follower]) -> list[BrokerError]:
    """Write each bundle and run its hook; return the errors."""
    errors = []
    for one in followers:
        try:
            one.once()
        except BrokerError as error:
            errors.append(type(error)(f"{one.table.name}: {error.message}", hint=error.hint))
    return errors
