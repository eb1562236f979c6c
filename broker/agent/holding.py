"""Hold a bundle's files: follow rotations, renew the lease, and remove the files at the end."""

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.agent.ports import Output, Place
from broker.copies import replace
from broker.delivery.directory import CURRENT, GRACE
from broker.delivery.root import LeftBehindError
from broker.errors import BrokerError, DeniedError
from broker.model.bundle import Granted, Source, Wanted
from broker.model.clock import Clock
from broker.model.waiting import Ended, Event
from broker.signals import wait_for_end
from broker.telemetry import log

Wait = Callable[[datetime, threading.Event], int]  # until a time or an event: 0; a number ends it
_GRACE: Final = GRACE + timedelta(seconds=1)  # until displaced files can be removed
_SHARE: Final = (0.5, 0.7)  # of what is left of a lease, when it is renewed
_LEAST: Final = timedelta(seconds=1)  # until it is renewed
_AGAIN: Final = (3.0, 10.0)  # seconds until a failed renewal is tried again; twice as long each time
_DOUBLED: Final = 5  # times at most
_READ: Final = (20.0, 40.0)  # seconds between two looks at an account, without a service
_PAUSE: Final = (0.0, 2.0)  # seconds before another wait: all waits of a replica end together
_CUT: Final = (0.0, 10.0)  # the same after a failure; twice as long each time, three times at most
_POLL: Final = (120.0, 240.0)  # seconds between two looks at the current generation, beside the waits


class Displaced(Struct, frozen=True):
    """Files of an older generation: their lease is held until `until`, when they are removed."""

    granted: Granted
    generation: str  # its directory
    until: datetime


class Held:
    """A bundle and its published files, which follow the account's current generation.

    The attributes after `displaced` may be set before it is published.
    """

    def __init__(
        self, source: Source, wanted: Wanted, files: Place, clock: Clock, granted: Granted | None = None
    ) -> None:
        self._source = source
        self.wanted = wanted
        self._files = files
        self._clock = clock
        self._failures = 0
        self._renews_at: datetime | None = None
        self._staying: tuple[Path, ...] | None = None
        self.granted = granted or source.grant(wanted)  # there is no file yet
        self.displaced: list[Displaced] = []
        self.say: Callable[[str], None] = log.info
        self.grace = _GRACE  # for which older generations stay
        self.outputs: Sequence[Output] = ()  # beside the files
        self.followed: Callable[[], None] = lambda: None  # is called when the files are of another generation
        self.failed: Callable[[BrokerError], None] = lambda _: None  # is called for an error that ends nothing
        self.worked: Callable[[], None] = lambda: None  # is called when the lease was renewed and all is written
        self.keep: Callable[[Sequence[tuple[Granted, str]]], None] = lambda _: None  # gets the leases with directories
        self.may_return: Callable[[], bool] = lambda: True  # whether leases of older generations may be given back
        self.extend: Callable[[Wanted, Granted], tuple[Granted, object]] | None = None  # also of an older generation
        self.poll: Callable[[], int | None] | None = None  # returns the current generation, beside the waits
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
            with suppress(BrokerError):
                self.keep([(one.granted, one.generation) for one in self.displaced])
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
        """Keep the files current until a signal, and return its number; else as `follow_by`."""
        return self.follow_by(lambda until, news: wait_for_end(signals, until, self._clock, news))

    def follow_by(self, wait: Wait) -> int:
        """Keep the files current until `wait` returns a number, and return it; or until the lease ends, and return 0.

        It may be called again afterwards. Raise `DeniedError` or `RefusedError` if the bundle may not be used any
        more.
        """
        news, at, polls_at = self._news, self._renews_at or self._next(), self._next_poll()
        news.begin()
        while True:
            self._renews_at = at
            prune = min((one.until for one in self.displaced), default=at)
            if number := wait(min(at, prune, polls_at), news.heard):
                return number
            heard = news.take()
            if not heard and prune < min(at, polls_at):
                self._prune(prune)
                continue
            if not heard and polls_at < at:
                heard, polls_at = self._polled(), self._next_poll()
                if not heard:
                    continue
            if heard == Ended(Event.GENERATION, self.granted.lease.generation):  # a renewal has brought it already
                news.go_on()
                continue
            if not heard and self._clock() >= self.granted.lease.expires:
                return 0
            at = self._tried(heard)
            news.go_on()

    def put(self) -> bool:
        """Write the bundle to the other outputs. One that fails is tried again soon, and ends nothing."""
        failed = [output for output in self.outputs if not self._put(output)]
        self._renews_at = self._soon() if failed else None
        return not failed

    def wake(self) -> None:
        """End the wait of another thread."""
        self._news.heard.set()

    def refresh(self) -> None:
        """Hold the newest generation for longer, with a new lease if the old one has ended."""
        self._renewed(None)
        self._renews_at = None

    def _tried(self, heard: Ended | None) -> datetime:
        """Renew; return when to do so again. Raise for an error that ends the bundle."""
        try:
            renewed = self._renewed(heard)
        except DeniedError as error:
            taken = f"the lease or the right was taken away: {error.message}"
            raise DeniedError(taken, hint=error.hint) from None
        except BrokerError as error:
            if not error.retryable:
                raise
            self.say(f"{error.message}; trying again until the lease ends")
            self.failed(error)
            return self._soon()
        if not renewed:
            self._failures = 0
            return self.granted.lease.expires
        if self.put():
            self._failures = 0
            self.worked()
        return self._renews_at or self._next()

    def _put(self, output: Output) -> bool:
        try:
            output.write(self.granted.bundle)
        except BrokerError as error:
            self.failed(error)
            return False
        return True

    def _soon(self) -> datetime:
        """Return when to try again after a failure."""
        seconds = random.uniform(*_AGAIN) * 2 ** min(self._failures, _DOUBLED)  # noqa: S311  # no secret
        self._failures += 1
        return self._at_most(timedelta(seconds=seconds))

    def _polled(self) -> Ended | None:
        """Look at the current generation; return the news if it is another one."""
        try:
            found = self.poll() if self.poll else None
        except DeniedError:
            return Ended(Event.REVOKED)
        except BrokerError as error:
            log.info("the current generation was not seen", reason=error.message)
            return None
        return None if found in (None, self.granted.lease.generation) else Ended(Event.GENERATION, found)

    def _next_poll(self) -> datetime:
        if not self.poll:
            return datetime.max.replace(tzinfo=UTC)
        return self._clock() + timedelta(seconds=random.uniform(*_POLL))  # noqa: S311

    def withdraw(self) -> tuple[Path, ...]:
        """Remove the files, once; return what stays. If it raises, the files that are left stay recorded."""
        if self._staying is None:
            self._staying = self._files.withdraw()
        return self._staying

    def give_back(self) -> None:
        """Record that the bundle is no longer held, nor those whose files it displaced."""
        self._return_displaced(self.displaced)
        self._source.give_back(self.granted)

    def close(self) -> None:
        """Close the directories, and hear nothing more."""
        self._news.stop()
        self._files.close()

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
        has_ended = self._clock() >= before.lease.expires
        if has_ended or (heard and heard.event is Event.GENERATION):
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
            self.say(f"generation {bundle.generation} of {bundle.account}/{bundle.application} in {current}")
            self.followed()
        if is_new and self.path.name != generation:
            self.displaced.append(self._later(Displaced(before, generation, self._clock() + self.grace)))
        elif is_new:
            self._returned(before)
        if is_new:
            self._kept()
        return True

    def _prune(self, until: datetime) -> None:
        """Remove the files that were displaced until `until`, and give their leases back."""
        due = [one for one in self.displaced if one.until <= until]
        self.displaced = [one for one in self.displaced if one.until > until]
        try:
            self._files.prune(self._clock())
        except BrokerError as error:
            self.say(f"displaced files were not removed: {error.message}")
        if self.may_return():
            self._return_displaced(due)
        else:  # its readers may not have heard of the newer one
            again = self._clock() + timedelta(seconds=random.uniform(*_AGAIN))  # noqa: S311
            self.displaced += [self._later(replace(one, until=again)) for one in due]
        self._kept()

    def _later(self, one: Displaced) -> Displaced:
        """Return `one` with a lease that lasts until its time."""
        if self.extend and one.granted.lease.expires < one.until + self.grace:
            try:
                return replace(one, granted=self.extend(self.wanted, one.granted)[0])
            except BrokerError as error:  # it ends by itself
                log.info("the lease before was not renewed", reason=error.message)
        return one

    def _return_displaced(self, displaced: list[Displaced]) -> None:
        """Give leases back whose files are gone; the others end by themselves."""
        for one in displaced:
            if not self._files.has(one.generation) and self._clock() < one.granted.lease.expires:
                self._returned(one.granted)

    def _written(self, granted: Granted) -> None:
        self._kept((granted, ""))
        self._files.write(granted.bundle)
        self._staying = None

    def _kept(self, *more: tuple[Granted, str]) -> None:
        """Have the leases kept: a process that starts after a kill uses them or gives them back."""
        ours = [(self.granted, "")] if self.granted not in [one for one, _ in more] else []
        self.keep([*more, *ours, *((one.granted, one.generation) for one in self.displaced)])

    def _returned(self, before: Granted) -> None:
        try:
            self._source.give_back(before)
        except BrokerError as error:
            self.say(f"the lease before was not given back ({error.message}): it ends at {before.lease.expires:%F %TZ}")


class _News(threading.Thread):
    """Waits at the source. What it hears is kept until it is taken."""

    def __init__(self, source: Source, granted: Callable[[], Granted]) -> None:
        super().__init__(name="news", daemon=True)
        self.heard = threading.Event()
        self._source = source
        self._granted = granted
        self._found: Ended | None = None
        self._cuts = 0
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
            lease = self._granted().lease  # this thread has not the fields of the bundle's
            log.info("wait was cut", bundle=f"{lease.account}/{lease.application}", reason=error.message)
            self._paused(_CUT, 2 ** min(self._cuts, 3))
            self._cuts += 1
            return None
        self._cuts = 0
        if found.event in (Event.DRAIN, Event.TIMEOUT):
            self._paused(_PAUSE)
            return None
        return found

    def _paused(self, seconds: tuple[float, float] | None, times: int = 1) -> bool:
        """Pause, and return whether to go on."""
        return not self._stopped.wait(times * random.uniform(*seconds) if seconds else 0)  # noqa: S311
