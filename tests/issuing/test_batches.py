"""Batches of leases: faults, threads that know records, and records that are no longer true."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from broker.copies import replace
from broker.errors import BrokerError, VaultUnavailableError
from broker.issuing.announced import Announced
from broker.issuing.batches import Batches, Recorder, Recording
from broker.issuing.loop_journal import LoopJournal
from broker.model import holdings
from broker.model.bounded import Bounded
from broker.model.chain import Entry
from broker.model.holdings import ConsumerRecord, StoredRecord
from broker.model.lease import BundleKind, Consumer, Lease
from tests.support.accounts import BY, MZP, NOW
from tests.support.on_loop import run


def recording(entity: str = "e-1", id_: str = "l1") -> Recording:
    lease = Lease(id_, entity, MZP, "fleet", BundleKind.DIRECT, 1, NOW, NOW + timedelta(hours=1))
    return Recording(Consumer(entity, entity), lease)


class Records:
    """`Consumers` in memory."""

    def __init__(self) -> None:
        self.found: dict[str, ConsumerRecord] = {}

    def change_known(
        self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord], known: StoredRecord | None
    ) -> StoredRecord:
        self.found[entity] = change(self.found.get(entity, ConsumerRecord(entity, name)))
        return StoredRecord(self.found[entity], 1)


def a_recorder(records: Records) -> Recorder:
    async def store(_: Entry) -> None:
        pass

    journal = LoopJournal("issued/test", store, lambda: NOW, BY)
    return Recorder(records, journal, lambda: NOW, Announced(lambda: 0.0), lambda: 0.0)


def test_a_fault_stops_no_later_batch() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def write(batch: Sequence[Recording]) -> list[int | BrokerError]:
        if begun.is_set():
            return [7 for _ in batch]
        begun.set()
        await go.wait()
        raise LookupError

    async def test() -> None:
        made = Batches(write)
        lost = asyncio.create_task(made.record(recording()))
        await begun.wait()
        later = asyncio.create_task(made.record(recording()))
        await asyncio.sleep(0)  # it waits
        go.set()
        assert await later == 7
        with pytest.raises(BrokerError, match="unexpected"):
            await lost

    run(test)


class Slow(Bounded[str, object]):
    """Other threads take turns before the first key is read."""

    def __iter__(self) -> Iterator[str]:
        found = super().__iter__()
        for _ in range(1000):
            pass
        return found


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_many_threads_know_records(monkeypatch: pytest.MonkeyPatch, restless: None) -> None:
    """More consumers than are known: each writer forgets the oldest."""
    recorder = a_recorder(Records())
    monkeypatch.setattr(recorder, "_known", Slow(3))
    for _ in range(20):
        assert asyncio.run(recorder.write([recording(f"e-{n}") for n in range(100)])) == [0] * 100
    assert len(recorder._known) == 3


def test_an_older_record_hides_no_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer is slow after its write; meanwhile a bundle is given back."""
    records, written, go = Records(), threading.Event(), threading.Event()
    recorder, write = a_recorder(records), Records.change_known
    assert asyncio.run(recorder.write([recording(), recording(id_="l2")])) == [0, 0]

    def slow(
        entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord], known: StoredRecord | None
    ) -> StoredRecord:
        done = write(records, entity, name, change, known)
        monkeypatch.undo()
        written.set()
        go.wait(30)
        return done

    monkeypatch.setattr(records, "change_known", slow)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(asyncio.run, recorder.write([replace(recording(id_="l3"), keyed=True)]))
        assert written.wait(30)
        given_back = recording()
        recorder.end(given_back.consumer, given_back.lease)
        go.set()
        assert late.result() == [0]
    assert asyncio.run(recorder.write([recording(id_="l4")])) == [1]


def ended_at_once(recorder: Recorder, records: Records, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """Give ten leases of one consumer back, nine of them while the first is written: the writes, and the errors."""
    begun, go, writes, write = threading.Event(), threading.Event(), [], records.change_known

    def slow(*args: Any) -> StoredRecord:
        begun.set()
        go.wait(30)
        writes.append(args)
        return write(*args)

    monkeypatch.setattr(records, "change_known", slow)
    given_back = [recording(id_=f"l{number}") for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(recorder.end, given_back[0].consumer, given_back[0].lease)
        assert begun.wait(30)
        others = [pool.submit(recorder.end, one.consumer, one.lease) for one in given_back[1:]]
        while len(recorder._endings["e-1"]) < len(others):
            time.sleep(0.001)
        go.set()
        errors = [str(error) for one in (first, *others) if (error := one.exception(30))]
    return len(writes), errors


def test_ends_that_wait_share_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records()
    assert ended_at_once(a_recorder(records), records, monkeypatch) == (2, [])
    assert {r.lease for r in records.found["e-1"].revocations} == {f"l{number}" for number in range(10)}


def test_an_end_too_many_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records()
    monkeypatch.setattr(holdings, "_MOST", 9)
    writes, errors = ended_at_once(a_recorder(records), records, monkeypatch)
    assert (writes, len(errors), len(records.found["e-1"].revocations)) == (11, 1, 9)
    assert "gave back" in errors[0]


def test_a_fault_is_the_error_of_each_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> StoredRecord:
        raise VaultUnavailableError("Vault is away")

    records = Records()
    monkeypatch.setattr(records, "change_known", away)
    assert ended_at_once(a_recorder(records), records, monkeypatch) == (2, ["Vault is away"] * 10)


def test_half_is_answered_while_half_is_written() -> None:
    """A hundred callers ask again and again."""
    sizes: list[int] = []
    answered = 0

    async def write(batch: Sequence[Recording]) -> list[int | BrokerError]:
        sizes.append(len(batch))
        before = answered
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(sizes) == 1 or answered - before == 50
        return [0 for _ in batch]

    async def test() -> None:
        made = Batches(write)

        async def ask() -> None:
            nonlocal answered
            for _ in range(10):
                await made.record(recording())
                answered += 1

        await asyncio.gather(*(ask() for _ in range(100)))
        assert sizes == [50] * 20

    run(test)


def test_few_share_one_batch() -> None:
    sizes: list[int] = []

    async def write(batch: Sequence[Recording]) -> list[int | BrokerError]:
        sizes.append(len(batch))
        await asyncio.sleep(0)
        return [0 for _ in batch]

    async def test() -> None:
        made = Batches(write)
        await asyncio.gather(*(made.record(recording()) for _ in range(30)))
        assert sizes == [30]

    run(test)
