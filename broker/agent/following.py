"""One bundle of the agent: a thread that keeps it current, and says when it cannot."""

import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.agent.files import Files, removed
from broker.agent.holding import Displaced, Held
from broker.agent.hooks import Hooks
from broker.agent.ports import Output
from broker.agent.store import Left, Store
from broker.agent.tables import BundleTable, OnStale
from broker.copies import replace
from broker.delivery.directory import GRACE, cleared
from broker.delivery.root import held
from broker.errors import BrokerError, ConflictError, DeniedError, InputError, RefusedError, StorageFullError
from broker.fetching.service import Service
from broker.model.bundle import Granted
from broker.model.clock import Clock
from broker.signals import LOOK, paused
from broker.telemetry import log

_AGAIN: Final = (1.0, 3.0)  # seconds until a failed bundle is tried again; twice as long each time
_DOUBLED: Final = 5  # times at most: a minute
_STOPPED, _MOVED = 1, 2


class Condition(Enum):
    """The condition of a bundle."""

    STARTING = "starting"
    OK = "ok"
    UNREACHABLE = "unreachable"  # the broker gives no answer; the lease has not ended
    STALE = "stale"  # the lease has ended, and the broker gives no answer
    DENIED = "denied"
    REVOKED = "revoked"  # the lease or the right was taken away
    REFUSED = "refused"  # suspended, for example
    EXPIRED = "expired"  # the certificate
    UNWRITABLE = "unwritable"
    CLOCK = "clock"  # of this machine: it is ahead


_ENDING: Final = (Condition.DENIED, Condition.REVOKED, Condition.REFUSED, Condition.EXPIRED)  # the files go
_QUIET: Final = (Condition.STARTING, Condition.OK, Condition.UNREACHABLE)  # no hook


class Standing(Struct, frozen=True):
    """The condition of a bundle, since when, and why."""

    condition: Condition
    since: datetime
    message: str = ""

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.condition.value} ({self.message})" if self.message else self.condition.value


class Follower:
    """Keeps one bundle current until it is stopped. What goes wrong with it concerns no other."""

    def __init__(self, table: BundleTable, service: Service, outputs: Sequence[Output], clock: Clock) -> None:
        self.table = table
        self._service, self._outputs, self._clock = service, outputs, clock
        self.store = Store(table.root)
        self.hooks = Hooks(table, self.store, clock)
        self.standing = Standing(Condition.STARTING, clock())
        self.failures = 0  # in a row
        self._files = Files(table.root, table.formats, clock, table.copies)
        self._held: Held | None = None
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name=table.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to remove everything and to end; `join` waits for that."""
        self._stopped.set()
        self._wake.set()
        held = self._held
        if held:
            held.wake()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    @property
    def granted(self) -> Granted | None:
        """The bundle that is held."""
        return self._held.granted if self._held else None

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def once(self) -> None:
        """Write the newest bundle and run its hook; leave the files when this returns, also if the hook fails.

        Raise `BrokerError`.
        """
        copy_context().run(self._once)

    def _once(self) -> None:
        log.bind(bundle=self.table.name)
        try:
            self._take()
            self._current()
            self._succeeded()
        except BrokerError as error:
            self._failed(error)
            with suppress(BrokerError):
                self.hooks.once()
            raise
        else:
            self.hooks.once()
        finally:
            if self._held:
                self._held.close()
            self.store.close()

    def _run(self) -> None:
        log.bind(bundle=self.table.name)
        self.hooks.start()
        try:
            while not self._stopped.is_set():
                try:
                    self._keep()
                except BrokerError as error:
                    self._failed(error)
                    self._pause()
        except Exception as fault:  # noqa: BLE001  # `is_alive` tells; the files stay as they are
            log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))
            return
        self._end()

    def _keep(self) -> None:
        """Keep the bundle current; return when it is stopped."""
        if not self.store.is_open:
            self._take()
        while True:
            self._current()
            self._succeeded()
            assert self._held
            number = self._held.follow_by(self._waited)
            if number == _STOPPED:
                return
            if number == _MOVED:
                self._moved()
                self._take()

    def _take(self) -> None:
        """Take the directory, and what a killed process left in it."""
        left = self.store.open()
        removed([Path(path) for path in self.store.state.copies if Path(path) not in self._copies])
        self.store.note(copies=tuple(map(str, self._copies)))
        if left.granted and _fits(left.granted, self.table):
            made, until = self._holding(left.granted), self._clock() + GRACE
            made.displaced = [Displaced(one, name, until) for one, name in left.others if name]
            self._published(made)
            self._held = made
        else:
            self._discard(left)

    def _discard(self, left: Left) -> None:
        """Remove what a killed process left, and give its leases back."""
        self._remove()
        with held(self.table.root) as directory:
            cleared(directory)
        for one, _ in (*([(left.granted, "")] if left.granted else ()), *left.others):
            with suppress(BrokerError):  # it ends by itself
                self._service.give_back(one)
        self.store.save([])

    def _current(self) -> None:
        """Have the newest bundle on disk, under a lease that goes on."""
        if self._held:
            self._held.refresh()
        else:
            held = self._holding(None)
            self._published(held)
            self._held = held
        if self._held.granted.lease.expires <= self._clock():
            raise _ClockError("the lease has ended already, by the clock of this machine", hint="timedatectl status")

    def _holding(self, granted: Granted | None) -> Held:
        made = Held(self._service, self.table.wanted, self._files, self._clock, granted)
        made.outputs = self._outputs
        made.keep = self.store.save
        made.followed = lambda: self._hooked(made)
        made.failed = self._troubled
        made.worked = lambda: self._stands(Condition.OK)
        made.extend = self._service.extend
        made.may_return = lambda: self.hooks.settled
        made.poll = self._polled
        return made

    def _published(self, made: Held) -> None:
        try:
            made.publish()
        except BrokerError:
            made.close()
            self._remove()
            raise

    def _hooked(self, made: Held) -> None:
        self.hooks.published(made.path.name, made.granted.lease.generation)

    def _polled(self) -> int | None:
        """Return the current generation, as the service lists it."""
        found = self._service.application(self.table.wanted.account, self.table.wanted.application)
        return found.generation if found else None

    def _waited(self, until: datetime, news: threading.Event) -> int:
        """Wait for a time or for news; return a number if this is stopped, or the directory was moved."""

        def pause(seconds: float) -> int:
            if not self._stopped.is_set():
                news.wait(min(seconds, LOOK))
            if self._stopped.is_set():
                return _STOPPED
            return _MOVED if self.store.has_moved else 0

        return paused(pause, until, self._clock, news.is_set)

    def _succeeded(self) -> None:
        assert self._held
        self.failures = 0
        self._hooked(self._held)
        if self._held.put():
            self._stands(Condition.OK)

    def _failed(self, error: BrokerError) -> None:
        """Judge a failure: remove the files if they may not be used any more."""
        self.failures += 1
        condition = self._lasting(self._condition(error))
        lease = self._held.granted.lease if self._held else None
        is_over = condition is Condition.STALE and lease and self._clock() >= lease.expires + self.table.max_stale
        if condition in _ENDING or (is_over and self.table.on_stale is OnStale.REMOVE):
            self._drop()
        elif condition is Condition.STALE:
            self._empty()
        self._stands(condition, error)

    def _lasting(self, condition: Condition) -> Condition:
        """Return the condition, or the one before if this is only its effect: the files are gone."""
        before = self.standing.condition
        if condition in _ENDING and before in _ENDING:
            return before
        return before if condition is Condition.UNREACHABLE and before is Condition.STALE else condition

    def _condition(self, error: BrokerError) -> Condition:
        bundle = self._held.granted.bundle if self._held else None
        if bundle and bundle.not_after <= self._clock():
            return Condition.EXPIRED
        match error:
            case _ClockError():
                return Condition.CLOCK
            case DeniedError():
                return Condition.REVOKED if self._held else Condition.DENIED
            case RefusedError():
                return Condition.REFUSED
            case InputError() | StorageFullError():
                return Condition.UNWRITABLE
        has_ended = self._held and self._held.granted.lease.expires <= self._clock()
        return Condition.STALE if has_ended else Condition.UNREACHABLE

    def _troubled(self, error: BrokerError) -> None:
        """Take note of an error while the lease goes on."""
        is_ours = isinstance(error, StorageFullError | InputError)
        self._stands(Condition.UNWRITABLE if is_ours else Condition.UNREACHABLE, error)

    def _stands(self, condition: Condition, error: BrokerError | None = None) -> None:
        message = error.message if error else ""
        if condition is not self.standing.condition:
            self.standing = Standing(condition, self._clock(), message)
            (log.error if error else log.info)("bundle", condition=condition, reason=message)
        else:
            self.standing = replace(self.standing, message=message)
        if condition is Condition.OK:
            self.hooks.recovered()
        elif condition not in _QUIET:
            self.hooks.failed(condition.value)

    def _drop(self) -> None:
        """Remove the files, and give the leases back."""
        if not self.store.is_open:
            return
        held, self._held = self._held, None
        if held:
            with suppress(BrokerError):
                held.withdraw()
        self._remove()
        self.hooks.removed()
        if held:
            try:
                held.give_back()
            except BrokerError as error:
                log.info("a lease was not given back: it ends by itself", reason=error.message)
            held.close()
        self.store.save([])

    def _moved(self) -> None:
        """Remove everything from the directory that was renamed."""
        log.error("the directory was moved: its files are removed, and written again", directory=str(self.table.root))
        with suppress(BrokerError):
            self._drop()
        self.store.clear()

    def _remove(self) -> None:
        """Remove what other outputs have, and copies."""
        self._empty()
        removed(self._copies)

    def _empty(self) -> None:
        """Remove what other outputs have. One that cannot be reached ends it with the lease."""
        for output in self._outputs:
            try:
                output.remove()
            except BrokerError as error:
                log.error("the bundle was not removed", reason=error.message, hint=error.hint)

    @property
    def _copies(self) -> list[Path]:
        return [copy.path for copy in self.table.copies]

    def _pause(self) -> None:
        """Wait before another try: longer each time, and not past the time when stale files go."""
        seconds = random.uniform(*_AGAIN) * 2 ** min(self.failures - 1, _DOUBLED)  # noqa: S311  # no secret
        if self._held:
            stale = self._held.granted.lease.expires + self.table.max_stale - self._clock()
            if stale > timedelta(0):
                seconds = min(seconds, stale.total_seconds())
        self._wake.wait(seconds)

    def _end(self) -> None:
        """Remove everything."""
        try:
            self._drop()
            log.info("the files are gone")
        except BrokerError as error:
            log.error("not everything was removed", reason=error.message, hint=error.hint)
        self.hooks.stop()
        self.store.clear()
        with suppress(OSError):
            self.table.root.rmdir()


class _ClockError(ConflictError):
    """The clock of this machine is ahead of the broker's."""


def _fits(granted: Granted, table: BundleTable) -> bool:
    return (granted.lease.account, granted.lease.application) == (table.wanted.account, table.wanted.application)
