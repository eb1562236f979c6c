"""Hold a bundle's files: follow rotations, renew the lease, and remove the files at the end."""

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from broker.delivery.directory import CURRENT, GRACE, Holding
from broker.delivery.root import LeftBehindError
from broker.errors import BrokerError, DeniedError
from broker.model.bundle import Bundle, Granted, Source, Wanted
from broker.model.clock import Clock
from broker.model.waiting import Ended, Event
from broker.signals import wait_for_end
from broker.telemetry import log

Publish = Callable[[Bundle], AbstractContextManager[Holding]]
Say = Callable[[str], None]
_GRACE: Final = GRACE + timedelta(seconds=1)  # until displaced files can be removed
_SHARE: Final = (0.5, 0.7)  # of what is left of a lease, when it is renewed
_LEAST: Final = timedelta(seconds=1)  # until it is renewed
_AGAIN: Final = (3.0, 10.0)  # seconds until a failed renewal is tried again
_READ: Final = (20.0, 40.0)  # seconds between two looks at an account, without a service
_PAUSE: Final = (0.0, 2.0)  # seconds before another wait: all waits of a replica end together
_CUT: Final = (0.0, 10.0)  # the same after a failure


@dataclass(frozen=True, slots=True)
class _Displaced:
    """Files of an older generation: their lease is held until `until`, when they are removed."""

    granted: Granted
    generation: str  # its directory
    until: datetime


class Held:
    """A bundle and its published files, which follow the account's current generation."""

    def __init__(self, source: Source, wanted: Wanted, publish: Publish, clock: Clock, say: Say = log.info) -> None:
        self._source = source
        self.wanted = wanted
        self._publish = publish
        self._clock = clock
        self._say = say
        self._open = ExitStack()
        self._displaced: list[_Displaced] = []
        self._renews_at: datetime | None = None
        self._staying: tuple[Path, ...] | None = None
        self.followed: Callable[[], None] = lambda: None  # is called when the files are of another generation
        self.granted = source.grant(wanted)  # there is no file yet
        self._news = _News(source, lambda: self.granted)
        log.bind(lease=self.granted.lease.id)

    def publish(self) -> None:
        """Write the files; if that fails, give the bundle back."""
        try:
            self._written(self.granted)
        except LeftBehindError:
            raise  # the files that are left stay recorded
        except BaseException:
            self._source.give_back(self.granted)
            raise

    @property
    def renews(self) -> bool:
        """Whether the lease can be renewed."""
        return self._source.renews

    @property
    def path(self) -> Path:
        """The directory of the published generation."""
        return self._files.path

    def follow(self, signals: frozenset[int]) -> int:
        """Keep the files current until a signal, and return its number; or until the lease ends, and return 0.

        It may be called again after a signal. Raise `DeniedError` or `RefusedError` if the bundle may not be used any
        more.
        """
        news, at = self._news, self._renews_at or self._next()
        news.begin()
        while True:
            self._renews_at = at
            prune = min((one.until for one in self._displaced), default=at)
            if number := wait_for_end(signals, min(at, prune), self._clock, news.heard):
                return number
            heard = news.take()
            if not heard and prune < at:
                self._prune(prune)
                continue
            if not heard and self._clock() >= self.granted.lease.expires:
                return 0
            try:
                at = self._next() if self._renewed(heard) else self.granted.lease.expires
            except DeniedError as error:
                taken = f"the lease or the right was taken away: {error.message}"
                raise DeniedError(taken, hint=error.hint) from None
            except BrokerError as error:
                if not error.retryable:
                    raise
                self._say(f"{error.message}; trying again until the lease ends")
                at = self._at_most(timedelta(seconds=random.uniform(*_AGAIN)))  # noqa: S311  # no secret
            news.go_on()

    def withdraw(self) -> tuple[Path, ...]:
        """Remove the files, once; return what stays. If it raises, the files that are left stay recorded."""
        if self._staying is None:
            self._staying = self._files.withdraw()
        return self._staying

    def give_back(self) -> None:
        """Record that the bundle is no longer held, nor those whose files it displaced."""
        self._return_displaced(self._displaced)
        self._source.give_back(self.granted)

    def close(self) -> None:
        """Close the directories, and hear nothing more."""
        self._news.stop()
        self._open.close()

    def _next(self) -> datetime:
        """Return when to renew the lease, or its end if it cannot be renewed."""
        left = self.granted.lease.expires - self._clock()
        if not self._source.renews:
            return self.granted.lease.expires
        return self._at_most(max(_LEAST, left * random.uniform(*_SHARE)))  # noqa: S311

    def _at_most(self, later: timedelta) -> datetime:
        return min(self._clock() + later, self.granted.lease.expires)

    def _renewed(self, heard: Ended | None) -> bool:
        """Hold the newest generation for longer; return whether that was possible."""
        before, generation = self.granted, self.path.name
        if heard and heard.event is Event.GENERATION:
            after = self._source.grant(self.wanted)
        else:  # also to be sure that it has ended: the identity that waited may have
            after = self._source.renew(self.wanted, before)
        if after is before:
            return False
        is_new = after.lease.id != before.lease.id
        try:
            self._written(after)
        except LeftBehindError:
            raise  # as in `publish`
        except BaseException:
            if is_new:
                with suppress(BrokerError):
                    self._source.give_back(after)
            raise
        self.granted = after
        log.bind(lease=after.lease.id)
        if after.lease.generation != before.lease.generation:
            bundle = after.bundle
            current = self.path.with_name(CURRENT)
            self._say(f"generation {bundle.generation} of {bundle.account}/{bundle.application} in {current}")
            self.followed()
        if is_new and self.path.name != generation:
            self._displaced.append(_Displaced(before, generation, self._clock() + _GRACE))
        elif is_new:
            self._returned(before)
        return True

    def _prune(self, until: datetime) -> None:
        """Remove the files that were displaced until `until`, and give their leases back."""
        due = [one for one in self._displaced if one.until <= until]
        self._displaced = [one for one in self._displaced if one.until > until]
        try:
            self._files.prune(self._clock())
        except BrokerError as error:
            self._say(f"displaced files were not removed: {error.message}")
        self._return_displaced(due)

    def _return_displaced(self, displaced: list[_Displaced]) -> None:
        """Give leases back whose files are gone; the others end by themselves."""
        for one in displaced:
            if not self._files.has(one.generation) and self._clock() < one.granted.lease.expires:
                self._returned(one.granted)

    def _written(self, granted: Granted) -> None:
        with ExitStack() as opened:
            files = opened.enter_context(self._publish(granted.bundle))
            self._open.close()
            self._open, self._files, self._staying = opened.pop_all(), files, None

    def _returned(self, before: Granted) -> None:
        try:
            self._source.give_back(before)
        except BrokerError as error:
            self._say(
                f"the lease before was not given back ({error.message}): it ends at {before.lease.expires:%F %TZ}"
            )


class _News(threading.Thread):
    """Waits at the source. What it hears is kept until it is taken."""

    def __init__(self, source: Source, granted: Callable[[], Granted]) -> None:
        super().__init__(name="news", daemon=True)
        self.heard = threading.Event()
        self._source = source
        self._granted = granted
        self._found: Ended | None = None
        self._go_on = threading.Event()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Wait, again and again."""
        while self._paused(None if self._source.renews else _READ):
            found = self._waited()
            if found is None:
                continue
            self._found = found
            self._go_on.clear()
            self.heard.set()
            self._go_on.wait()
            if found.generation != self._granted().lease.generation:  # another replica may be behind
                self._paused(_PAUSE)

    def begin(self) -> None:
        """Start to wait, unless that has begun."""
        if self.ident is None:
            self.start()

    def take(self) -> Ended | None:
        """Return what was heard."""
        found, self._found = self._found, None
        self.heard.clear()
        return found

    def go_on(self) -> None:
        """Wait again."""
        self._go_on.set()

    def stop(self) -> None:
        """Wait no more."""
        self._stopped.set()
        self._go_on.set()

    def _waited(self) -> Ended | None:
        try:
            found = self._source.wait(self._granted())
        except DeniedError:
            return Ended(Event.REVOKED)
        except BrokerError as error:
            log.info("wait was cut", reason=error.message)
            self._paused(_CUT)
            return None
        if found.event in (Event.DRAIN, Event.TIMEOUT):
            self._paused(_PAUSE)
            return None
        return found

    def _paused(self, seconds: tuple[float, float] | None) -> bool:
        """Pause, and return whether to go on."""
        return not self._stopped.wait(random.uniform(*seconds) if seconds else 0)  # noqa: S311
