"""Record leases in batches: whatever waits when a write is durable shares the next one.

A batch is one entry of evidence, and one change of the record of each consumer in it whose holding is not recorded
yet. A lease ends on a multiple of a sixtieth of its term (`batch_issuer`), so further leases of a consumer within that
time end together, and one record covers them.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from threading import Lock
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from broker.errors import BrokerError
from broker.issuing.announced import Announced
from broker.issuing.grant import facts
from broker.issuing.leases import ended
from broker.issuing.loop_journal import LoopJournal
from broker.model.bounded import Bounded
from broker.model.chain import BATCH
from broker.model.clock import Clock
from broker.model.holdings import ConsumerRecord, NamedLease, StoredRecord
from broker.model.lease import Consumer, Lease
from broker.model.recent_changes import CONSUMERS
from broker.telemetry import log, metrics

_LARGEST: Final = 500  # leases in a batch: 200 KB of evidence; Vault takes a value of 1 MiB
_LEAST: Final = 32  # leases that take as long to answer as to write: a larger batch is half of what is outstanding
_TURNS: Final = 2  # of the event loop before a batch is taken: requests that have arrived join it
_KNOWN: Final = 2.0  # seconds that a record is used, since it was last known that no person has revoked a lease
_RECORDS: Final = 20_000  # in memory
_WRITERS: Final = 16  # threads for the records of a batch
_LOCKS: Final = 64
Change = Callable[[ConsumerRecord], ConsumerRecord]  # pure


class Recording(Struct, frozen=True):
    """A lease to record: granted, or renewed in place of `renewed`."""

    consumer: Consumer
    lease: Lease
    renewed: Lease | None = None
    keyed: bool = False  # by an idempotency key: an earlier lease of the same id may have been revoked

    def change(self, record: ConsumerRecord, clock: Clock) -> ConsumerRecord:
        """Return the consumer's record with the lease; raise `DeniedError` if it was revoked."""
        if self.renewed and record.has_revoked(self.lease):
            raise ended()
        if self.is_covered(record):
            return record
        return record.given(self.lease, now=clock())

    def is_covered(self, record: ConsumerRecord) -> bool:
        """Return whether the lease needs no change of `record`, even if that is not the newest."""
        alone = self.renewed is None and not self.keyed  # else the lease may have been revoked just now
        return alone and record.covers(self.lease)


class _Waiting(Struct, frozen=True):
    recording: Recording
    done: asyncio.Future[int]


_Results = list[tuple[_Waiting, int | BrokerError]]


class _Known(Struct, frozen=True):
    stored: StoredRecord
    at: float

    @property
    def epoch(self) -> int:
        return self.stored.record.epoch


class Records(Protocol):
    """Consumers' records."""

    def change_known(self, entity: str, name: str, change: Change, known: StoredRecord | None) -> StoredRecord:
        """Apply `change` to a consumer's record: to `known` first, which may be the newest."""


class _Ending:
    """The end of a lease, which waits to be recorded."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.result: ConsumerRecord | BrokerError = BrokerError("unexpected")


class Recorder:
    """Write batches to Vault. Threads call `end` and `end_named`, the event loop the rest.

    Ends of leases of one consumer that come at the same time share a write: its processes may all be stopped at once.
    """

    def __init__(
        self,
        consumers: Records,
        journal: LoopJournal,
        clock: Clock,
        announced: Announced,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumers = consumers
        self._announced = announced
        self._journal = journal
        self._clock = clock
        self._uptime = uptime
        self._known: Bounded[str, _Known] = Bounded(_RECORDS)
        self._knowing = Lock()  # each writer changes what is known
        self._endings: defaultdict[str, list[_Ending]] = defaultdict(list)  # by entity
        self._turns = [Lock() for _ in range(_LOCKS)]  # one write of ends at a time; entities may share one
        self._pool = ThreadPoolExecutor(_WRITERS, "records")

    async def write(self, batch: Sequence[Recording]) -> list[int | BrokerError]:
        """Return the epoch of the record for each recording that is durable, an error for the others."""
        by_entity: dict[str, list[Recording]] = {}
        for recording in batch:
            by_entity.setdefault(recording.consumer.entity, []).append(recording)
        covered = {id(r): record.epoch for r in batch if (record := self._covering(r))}
        changing = {entity: [r for r in of_one if id(r) not in covered] for entity, of_one in by_entity.items()}
        loop = asyncio.get_running_loop()
        changes = [loop.run_in_executor(self._pool, self._record, todo) for todo in changing.values() if todo]
        failed: BrokerError | None = None
        try:
            await self._append_evidence(batch)
        except BrokerError as error:
            failed = error
        written = {id(r): result for results in await asyncio.gather(*changes) for r, result in results}
        return [failed or (covered | written)[id(recording)] for recording in batch]

    def end(self, consumer: Consumer, lease: Lease) -> None:
        """Record that the lease is revoked."""
        self._end(consumer, lambda record: record.without(lease, now=self._clock()))

    def end_named(self, consumer: Consumer, named: NamedLease) -> None:
        """Record that a lease of this consumer is revoked; raise `DeniedError` if its record has none such."""
        found = False

        def change(record: ConsumerRecord) -> ConsumerRecord:
            nonlocal found
            after = record.without_named(named, now=self._clock())
            found = after.has_revoked_named(named)
            return after

        self._end(consumer, change)
        if not found:
            raise ended()

    def _end(self, consumer: Consumer, change: Change) -> None:
        ending, entity = _Ending(change), consumer.entity
        with self._knowing:
            self._endings[entity].append(ending)
        with self._turns[hash(entity) % _LOCKS]:
            with self._knowing:
                waiting = self._endings.pop(entity, [])  # empty if the thread before wrote ours too
            results = self._changed(consumer, [one.change for one in waiting]) if waiting else []
            for one, result in zip(waiting, results, strict=True):
                one.result = result
        if isinstance(ending.result, BrokerError):
            raise ending.result

    def _covering(self, recording: Recording) -> ConsumerRecord | None:
        """Return the known record if nothing has to be written to it."""
        entity = recording.consumer.entity
        known = self._known.get(entity)
        if known is None or not recording.is_covered(known.stored.record):
            return None
        age = self._uptime() - self._announced.as_of(f"{CONSUMERS}{entity}", known.at)
        return known.stored.record if age < _KNOWN else None

    def _record(self, recordings: Sequence[Recording]) -> list[tuple[Recording, int | BrokerError]]:
        """Record all of one consumer."""
        changes = [partial(recording.change, clock=self._clock) for recording in recordings]
        results = self._changed(recordings[0].consumer, changes)
        epochs = (result if isinstance(result, BrokerError) else result.epoch for result in results)
        return list(zip(recordings, epochs, strict=True))

    def _changed(self, consumer: Consumer, changes: Sequence[Change]) -> list[ConsumerRecord | BrokerError]:
        """Change the record of a consumer in one write; make each change alone if that is refused."""

        def change(record: ConsumerRecord) -> ConsumerRecord:
            for one in changes:
                record = one(record)
            return record

        try:
            record = self._change(consumer, change)
        except BrokerError as error:
            if len(changes) == 1 or error.retryable:
                return [error for _ in changes]
            return [result for one in changes for result in self._changed(consumer, [one])]
        return [record for _ in changes]

    def _change(self, consumer: Consumer, change: Change) -> ConsumerRecord:
        entity, at = consumer.entity, self._uptime()
        known = self._known.get(entity)
        stored = self._consumers.change_known(entity, consumer.name, change, known.stored if known else None)
        self._know(entity, _Known(stored, at))
        return stored.record

    def _know(self, entity: str, newest: _Known) -> None:
        """Take note of a record, unless one of a later epoch is known: writers may come here in any order."""
        with self._knowing:
            known = self._known.get(entity)
            self._known[entity] = known if known and known.epoch > newest.epoch else newest

    async def _append_evidence(self, batch: Sequence[Recording]) -> None:
        if len(batch) == 1:
            await self._journal.append(_what(batch[0]), **facts(batch[0].lease, batch[0].consumer))
            return
        lines = [facts(recording.lease, recording.consumer) | {"what": _what(recording)} for recording in batch]
        records = b"\n".join(map(msgspec.json.encode, lines)).decode()
        await self._journal.append("bundles-issued", count=len(batch), **{BATCH: records})


Write = Callable[[Sequence[Recording]], Awaitable[Sequence[int | BrokerError]]]


def counted(write: Write) -> Write:
    """Return `write` with its leases and its time counted for metrics."""

    async def writing(batch: Sequence[Recording]) -> Sequence[int | BrokerError]:
        began = time.monotonic()
        results = await write(batch)
        durable = (r for r, result in zip(batch, results, strict=True) if not isinstance(result, BrokerError))
        metrics.batch(time.monotonic() - began, (r.renewed is not None for r in durable))
        return results

    return writing


class Batches:
    """Collect recordings on the event loop, and have them written one batch after the other.

    While a batch is on its way to Vault, the callers of the one before get their answers.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, recording: Recording) -> int:
        """Return the epoch of the consumer's record once lease and evidence are durable; raise `BrokerError`."""
        waiting = _Waiting(recording, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), context=Context())  # of no single request
        return await waiting.done

    async def _write_all(self) -> None:
        written: _Results = []
        while self._waiting or written:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            writing = asyncio.create_task(self._written(self._next(len(written))))
            _answer(written)  # the task was there first: it sends its batch before these callers go on
            written = await writing

    def _next(self, written: int) -> Sequence[_Waiting]:
        """Take a batch. Of many it is half of what is outstanding: the other half is answered meanwhile."""
        half = (len(self._waiting) + written + 1) // 2
        size = min(max(half, _LEAST), _LARGEST)
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        return batch

    async def _written(self, batch: Sequence[_Waiting]) -> _Results:
        if not batch:
            return []
        try:
            results = await self._write([waiting.recording for waiting in batch])
        except Exception as fault:  # noqa: BLE001  # the next batch is written
            log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))
            results = [BrokerError("unexpected") for _ in batch]
        return list(zip(batch, results, strict=True))


def _answer(written: _Results) -> None:
    for waiting, result in written:
        if waiting.done.done():  # the caller has gone
            continue
        if isinstance(result, BrokerError):
            waiting.done.set_exception(result)
        else:
            waiting.done.set_result(result)


def _what(recording: Recording) -> str:
    return "lease-renewed" if recording.renewed else "bundle-issued"
