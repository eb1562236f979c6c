"""Record leases in batches: whatever waits when a write is durable shares the next one.

A batch is one entry of evidence, and one change of the record of each consumer in it whose holding is not recorded
yet. A lease ends on a multiple of a sixtieth of its term (`batch_issuer`), so further leases of a consumer within that
time end together, and one record covers them.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from threading import Lock
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from broker.errors import BrokerError
from broker.evidence.journal import Journal
from broker.issuing.announced import Announced
from broker.issuing.grant import facts
from broker.issuing.leases import ended
from broker.model.bounded import Bounded
from broker.model.chain import BATCH
from broker.model.clock import Clock
from broker.model.holdings import ConsumerRecord, NamedLease, StoredRecord
from broker.model.lease import Consumer, Lease
from broker.model.recent_changes import CONSUMERS
from broker.telemetry import log, metrics

_LARGEST: Final = 500  # leases in a batch: 200 KB of evidence; Vault takes a value of 1 MiB
_TURNS: Final = 2  # of the event loop before a batch is taken: requests that have arrived join it
_KNOWN: Final = 2.0  # seconds that a record is used, since it was last known that no person has revoked a lease
_RECORDS: Final = 20_000  # in memory
_WRITERS: Final = 16  # threads for the records of a batch


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


class _Known(Struct, frozen=True):
    stored: StoredRecord
    at: float

    @property
    def epoch(self) -> int:
        return self.stored.record.epoch


class Records(Protocol):
    """Consumers' records."""

    def change_known(
        self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord], known: StoredRecord | None
    ) -> StoredRecord:
        """Apply the pure `change` to a consumer's record: to `known` first, which may be the newest."""


class Recorder:
    """Write a batch to Vault. One thread at a time calls `write`, others call `end` meanwhile."""

    def __init__(
        self,
        consumers: Records,
        journal: Journal,
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
        self._pool = ThreadPoolExecutor(_WRITERS, "records")

    def write(self, batch: Sequence[Recording]) -> list[int | BrokerError]:
        """Return the epoch of the record for each recording that is durable, an error for the others."""
        by_entity: dict[str, list[Recording]] = {}
        for recording in batch:
            by_entity.setdefault(recording.consumer.entity, []).append(recording)
        covered = {id(r): record.epoch for r in batch if (record := self._covering(r))}
        changing = {entity: [r for r in of_one if id(r) not in covered] for entity, of_one in by_entity.items()}
        changes = {entity: self._pool.submit(self._record, todo) for entity, todo in changing.items() if todo}
        failed: BrokerError | None = None
        try:
            self._append_evidence(batch)
        except BrokerError as error:
            failed = error
        written = {id(r): result for change in changes.values() for r, result in change.result()}
        return [failed or (covered | written)[id(recording)] for recording in batch]

    def end(self, consumer: Consumer, lease: Lease) -> None:
        """Record that the lease is revoked: its bundle was given back."""
        self._change(consumer, lambda record: record.without(lease, now=self._clock()))
        self._journal.append("bundle-returned", lease=lease.id, consumer=consumer.entity, account=lease.account)

    def end_named(self, consumer: Consumer, named: NamedLease) -> None:
        """Record that a lease of this consumer is revoked; raise `DeniedError` if its record has none such."""
        found = False

        def change(record: ConsumerRecord) -> ConsumerRecord:
            nonlocal found
            after = record.without_named(named, now=self._clock())
            found = after.has_revoked_named(named)
            return after

        self._change(consumer, change)
        if not found:
            raise ended()
        self._journal.append("bundle-returned", lease=named.id, consumer=consumer.entity, account=named.account)

    def _covering(self, recording: Recording) -> ConsumerRecord | None:
        """Return the known record if nothing has to be written to it."""
        entity = recording.consumer.entity
        known = self._known.get(entity)
        if known is None or not recording.is_covered(known.stored.record):
            return None
        age = self._uptime() - self._announced.as_of(f"{CONSUMERS}{entity}", known.at)
        return known.stored.record if age < _KNOWN else None

    def _record(self, recordings: Sequence[Recording]) -> list[tuple[Recording, int | BrokerError]]:
        """Record all of one consumer in one write; each alone if that is refused."""

        def change(record: ConsumerRecord) -> ConsumerRecord:
            for recording in recordings:
                record = recording.change(record, self._clock)
            return record

        try:
            record = self._change(recordings[0].consumer, change)
        except BrokerError as error:
            if len(recordings) == 1 or error.retryable:
                return [(recording, error) for recording in recordings]
            return [result for recording in recordings for result in self._record([recording])]
        return [(recording, record.epoch) for recording in recordings]

    def _change(self, consumer: Consumer, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
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

    def _append_evidence(self, batch: Sequence[Recording]) -> None:
        lines = [facts(recording.lease, recording.consumer) | {"what": _what(recording)} for recording in batch]
        if len(batch) == 1:
            self._journal.append(_what(batch[0]), **facts(batch[0].lease, batch[0].consumer))
            return
        records = b"\n".join(map(msgspec.json.encode, lines)).decode()
        self._journal.append("bundles-issued", count=len(batch), **{BATCH: records})


Write = Callable[[Sequence[Recording]], Sequence[int | BrokerError]]


def counted(write: Write) -> Write:
    """Return `write` with its leases and its time counted for metrics."""

    def writing(batch: Sequence[Recording]) -> Sequence[int | BrokerError]:
        began = time.monotonic()
        results = write(batch)
        durable = (r for r, result in zip(batch, results, strict=True) if not isinstance(result, BrokerError))
        metrics.batch(time.monotonic() - began, (r.renewed is not None for r in durable))
        return results

    return writing


class Batches:
    """Collect recordings on the event loop, and have them written one batch after the other."""

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
        while self._waiting:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            batch, self._waiting = self._waiting[:_LARGEST], self._waiting[_LARGEST:]
            try:
                results = await asyncio.to_thread(self._write, [waiting.recording for waiting in batch])
            except Exception as fault:  # noqa: BLE001  # the next batch is written
                log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))
                results = [BrokerError("unexpected") for _ in batch]
            for waiting, result in zip(batch, results, strict=True):
                if waiting.done.done():  # the caller has gone
                    continue
                if isinstance(result, BrokerError):
                    waiting.done.set_exception(result)
                else:
                    waiting.done.set_result(result)


def _what(recording: Recording) -> str:
    return "lease-renewed" if recording.renewed else "bundle-issued"
