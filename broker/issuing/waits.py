"""Waits of consumers: for another generation, and for the end of their lease or right. On a service's event loop.

The change document says what changed; it is read every fraction of a second while somebody waits. Everything that
somebody waits for is looked at from time to time too, so that a lost announcement only costs time (ADR 29).
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, Self, TypeVar

from msgspec import Struct

from broker.errors import BrokerError, BusyError, DeniedError, RateError, UnknownNameError
from broker.issuing.leases import ended, ended_by
from broker.model.account import Account
from broker.model.holdings import ConsumerRecord
from broker.model.lease import Caller, Consumer, Lease
from broker.model.names import AccountName
from broker.model.recent_changes import ACCOUNTS, CONSUMERS, RecentChanges
from broker.model.secret import Secret
from broker.model.waiting import Ended, Event
from broker.telemetry import log

_POLL: Final = (0.15, 0.2)  # seconds between two reads of the change document
_AWAY: Final = (1.0, 3.0)  # the same while it cannot be read
_AGAIN: Final = (0.3, 1.0)  # seconds after a change: a standby node may have shown an older account
_LOOK: Final = (10.0, 20.0)  # seconds between two looks at everything
_PACE: Final = 0.05  # seconds between two judgements of rights, at most
_ROUND: Final = 10.0  # seconds for the pauses between all of them, at most
_LONGEST: Final = (240.0, 300.0)  # seconds of a wait
_READERS: Final = 4  # threads
_Result = TypeVar("_Result")


class Asked(Struct, frozen=True):
    """A wait for another generation than `generation`, and for the end of `lease_text` if it is given."""

    account: AccountName
    application: str
    generation: int
    lease_text: Secret[str] | None = None


@dataclass(eq=False, slots=True)
class Wait:
    """A wait that goes on until `over` is done."""

    caller: Caller
    asked: Asked
    consumer: Consumer
    lease: Lease | None
    over: asyncio.Future[Ended]
    timer: asyncio.TimerHandle | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The documents that it depends on."""
        account = f"{ACCOUNTS}{self.asked.account}"
        return (account, f"{CONSUMERS}{self.consumer.entity}") if self.lease else (account,)


class Judges(Protocol):
    """The `BatchIssuer` of the service."""

    async def judged(self, caller: Caller, account: AccountName, application: str) -> Consumer:
        """Return the consumer, who has the right to bundles of `application`; raise `DeniedError`."""

    async def held(self, caller: Caller, lease_text: Secret[str]) -> tuple[Lease, Consumer]:
        """Return a lease of this caller; raise `DeniedError`."""

    def forget(self, account: AccountName) -> None:
        """Read the account again when it is next asked for."""


class Documents(Struct, frozen=True):
    """Reads of Vault, called in threads."""

    changes: Callable[[], RecentChanges]
    account: Callable[[AccountName], Account]  # raises UnknownNameError
    record: Callable[[str], ConsumerRecord | None]  # by entity


class Room(Struct, frozen=True):
    """The most waits of a replica, and of one consumer."""

    all: int = 8_000
    each: int = 1_000

    @classmethod
    def among(cls, connections: int) -> Self:
        """Return the room of a replica with so many connections: some stay free for bundles, and for other waits."""
        every = max(1, connections * 4 // 5)
        return cls(every, min(1_000, max(1, every // 4)))


@dataclass
class Waits:
    """All waits of a replica."""

    judges: Judges
    documents: Documents
    room: Room = field(default_factory=Room)

    def __post_init__(self) -> None:
        self._waiting: dict[str, set[Wait]] = {}  # by entity
        self._of: dict[str, set[Wait]] = {}  # by path
        self._count = 0
        self._number: int | None = None  # of the last change that was seen
        self._looking: set[str] = set()
        self._again: set[str] = set()  # to be looked at once more
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._poller = ThreadPoolExecutor(1, "changes")
        self._readers = ThreadPoolExecutor(_READERS, "waits")

    @property
    def count(self) -> int:
        """The number of waits that go on."""
        return self._count

    async def begin(self, caller: Caller, asked: Asked) -> Wait:
        """Return a new wait. Raise `DeniedError` without the right, `BusyError` without room."""
        lease = None
        if asked.lease_text:
            lease, consumer = await self.judges.held(caller, asked.lease_text)
            if (lease.account, lease.application) != (asked.account, asked.application):
                raise ended()
        else:
            consumer = await self.judges.judged(caller, asked.account, asked.application)
        if len(self._waiting.get(consumer.entity, ())) >= self.room.each:
            raise RateError("too many requests of this consumer wait for a change", hint="wait once in each process")
        if self._count >= self.room.all:
            raise BusyError("too many requests wait for a change", hint="ask another replica")
        wait = Wait(caller, asked, consumer, lease, asyncio.get_running_loop().create_future())
        self._add(wait)
        return wait

    def close(self, wait: Wait) -> None:
        """Forget a wait: it is over, or its client has gone."""
        waiting = self._waiting.get(wait.consumer.entity, set())
        if wait not in waiting:
            return
        _drop(self._waiting, wait.consumer.entity, wait)
        for path in wait.paths:
            _drop(self._of, path, wait)
        self._count -= 1
        if wait.timer:
            wait.timer.cancel()

    def drain(self) -> None:
        """End all waits, those that begin later too: this replica ends."""
        self._draining = True
        self._end(self._all(), Ended(Event.DRAIN))

    def _add(self, wait: Wait) -> None:
        self._waiting.setdefault(wait.consumer.entity, set()).add(wait)
        for path in wait.paths:
            self._of.setdefault(path, set()).add(wait)
        self._count += 1
        if self._draining:
            self._end([wait], Ended(Event.DRAIN))
            return
        seconds = random.uniform(*_LONGEST)  # noqa: S311  # no secret: clients come back one by one
        wait.timer = asyncio.get_running_loop().call_later(seconds, self._end, [wait], Ended(Event.TIMEOUT))
        self._start("poll", self._poll)
        self._start("judge", self._judge_all)
        for path in wait.paths:
            self._look_at(path)

    def _all(self) -> list[Wait]:
        return [wait for waits in self._waiting.values() for wait in waits]

    def _end(self, waits: Iterable[Wait], why: Ended) -> None:
        for wait in waits:
            if not wait.over.done():
                wait.over.set_result(why)
            self.close(wait)

    def _start(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run `work` unless it runs already."""
        if name not in self._loops or self._loops[name].done():
            self._loops[name] = asyncio.create_task(work(), context=Context())  # it is of no single request

    async def _poll(self) -> None:
        """Look at what the change document says, while somebody waits; now and then, at everything."""
        due = time.monotonic()
        while self._count:
            everything, pause = time.monotonic() >= due, _POLL
            if everything:
                due = time.monotonic() + random.uniform(*_LOOK)  # noqa: S311
            changed: frozenset[str] | None = frozenset()
            try:
                recent = await _in_thread(self._poller, self.documents.changes)
                changed = recent.since(None if everything else self._number)
                self._number = recent.number if changed is None else max(recent.number, self._number or 0)
            except BrokerError as error:
                log.info("changes cannot be read", reason=error.message)
                pause = _AWAY
            except Exception as fault:  # noqa: BLE001  # else nobody would look any more
                log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))
                pause = _AWAY
            if everything or changed is None:
                for path in tuple(self._of):
                    self._look_at(path)
            else:
                for path in changed:
                    self._changed(path)
                    for seconds in _AGAIN:
                        asyncio.get_running_loop().call_later(seconds, self._changed, path)
            await asyncio.sleep(random.uniform(*pause))  # noqa: S311

    async def _judge_all(self) -> None:
        """Now and then, judge the right of each who waits."""
        while self._count:
            await asyncio.sleep(random.uniform(*_LOOK))  # noqa: S311  # replicas take turns
            by_right: dict[tuple[bytes, AccountName, str], list[Wait]] = {}
            for wait in self._all():
                key = (wait.caller.digest, wait.asked.account, wait.asked.application)
                by_right.setdefault(key, []).append(wait)
            for waits in by_right.values():
                await self._judge_again(waits)
                await asyncio.sleep(_pace(len(by_right)))

    async def _judge_again(self, waits: list[Wait]) -> None:
        first = waits[0]
        try:
            await self.judges.judged(first.caller, first.asked.account, first.asked.application)
        except DeniedError:
            self._end(waits, Ended(Event.REVOKED))
        except BrokerError as error:  # Vault is away: that takes no right away
            log.info("a right cannot be judged", reason=error.message)
        except Exception as fault:  # noqa: BLE001  # the other rights are judged
            log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))

    def _changed(self, path: str) -> None:
        if path.startswith(ACCOUNTS):
            self.judges.forget(AccountName(path.removeprefix(ACCOUNTS)))
        self._look_at(path)

    def _look_at(self, path: str) -> None:
        """Read the document at `path`, once for all who wait for it."""
        if path in self._looking:
            self._again.add(path)
        elif path in self._of:
            self._looking.add(path)
            look = asyncio.create_task(self._look(path))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _look(self, path: str) -> None:
        try:
            while path in self._of:
                self._again.discard(path)
                waits = tuple(self._of[path])  # who begins to wait later has another read
                judge = await _in_thread(self._readers, partial(self._read, path))
                for wait in waits:
                    why = judge(wait)
                    if why:
                        self._end([wait], why)
                if path not in self._again:
                    return
        except BrokerError as error:  # the next look at everything reads it
            log.info("a change cannot be read", path=path, reason=error.message)
        finally:
            self._looking.discard(path)
            self._again.discard(path)

    def _read(self, path: str) -> Callable[[Wait], Ended | None]:
        if path.startswith(CONSUMERS):
            return partial(_by_record, self.documents.record(path.removeprefix(CONSUMERS)))
        try:
            account = self.documents.account(AccountName(path.removeprefix(ACCOUNTS)))
        except UnknownNameError:
            return lambda _: Ended(Event.REVOKED)
        return lambda wait: ended_by(account, wait.asked.application, wait.asked.generation)


def _pace(rights: int) -> float:
    """Return the seconds between two judgements of so many rights."""
    return min(_PACE, _ROUND / rights)


def _by_record(record: ConsumerRecord | None, wait: Wait) -> Ended | None:
    is_over = record and wait.lease and record.has_revoked(wait.lease)
    return Ended(Event.REVOKED) if is_over else None


def _drop(waits: dict[str, set[Wait]], key: str, wait: Wait) -> None:
    waits[key].discard(wait)
    if not waits[key]:
        del waits[key]


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(threads, function)
