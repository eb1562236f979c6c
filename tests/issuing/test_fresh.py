"""Values that were read a moment ago: never older than their limit, read once at a time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass, field

import pytest

from broker.errors import BrokerError, DeniedError, VaultUnavailableError
from broker.issuing.fresh import Fresh
from tests.support.on_loop import run


@dataclass
class Source:
    """Something to read, with a clock that moves by hand."""

    now: float = 0.0
    reads: int = 0
    error: BrokerError | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> int:
        self.reads += 1
        number, error = self.reads, self.error
        await self.go_on.wait()
        if error:
            raise error
        return number

    def fresh(self) -> Fresh[str, int]:
        self.go_on.set()
        return Fresh(4.0, lambda: self.now)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_young_value_is_not_read_again() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        assert [await fresh.get("a", source.read) for _ in range(3)] == [1, 1, 1]

    run(test)


def test_many_askers_share_one_read() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        source.go_on.clear()
        asking = [asyncio.create_task(fresh.get("a", source.read)) for _ in range(20)]
        await settled()
        source.go_on.set()
        assert await asyncio.gather(*asking) == [1] * 20

    run(test)


def test_a_middle_aged_value_is_read_behind() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        await fresh.get("a", source.read)
        source.now = 3.0
        assert await fresh.get("a", source.read) == 1
        await settled()
        assert await fresh.get("a", source.read) == 2

    run(test)


def test_an_old_value_is_never_returned() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        await fresh.get("a", source.read)
        source.now, source.error = 4.0, VaultUnavailableError("away")
        with pytest.raises(VaultUnavailableError):
            await fresh.get("a", source.read)

    run(test)


def test_age_counts_from_the_start_of_a_read() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        source.go_on.clear()
        slow = asyncio.create_task(fresh.get("a", source.read))
        await settled()
        source.now = 4.0
        source.go_on.set()
        assert await slow == 1
        assert await fresh.get("a", source.read) == 2

    run(test)


def test_denials_are_kept_other_errors_not() -> None:
    async def test() -> None:
        source = Source(error=DeniedError("no"))
        fresh = source.fresh()
        for _ in range(3):
            with pytest.raises(DeniedError):
                await fresh.get("a", source.read)
        assert source.reads == 1
        source.error = VaultUnavailableError("away")
        for _ in range(3):
            with pytest.raises(VaultUnavailableError):
                await fresh.get("b", source.read)
        assert source.reads == 4

    run(test)


def test_a_kept_denial_holds_no_request() -> None:
    """The traceback of a denial leads to the head of a request, and to its token."""

    async def test() -> None:
        source = Source(error=DeniedError("no", hint="ask them"))
        fresh, requests = source.fresh(), []

        async def handle() -> None:
            request = Source()
            requests.append(weakref.ref(request))
            await fresh.get("a", source.read)

        for _ in range(3):
            with pytest.raises(DeniedError, match="no") as caught:
                await handle()
            assert caught.value.hint == "ask them"
            assert caught.value.__context__ is caught.value.__cause__ is None
            del caught
        source.error = None
        gc.collect()
        assert source.reads == 1
        assert [request() for request in requests] == [None] * 3

    run(test)


def test_denials_beyond_their_age_are_dropped() -> None:
    async def test() -> None:
        source = Source(error=DeniedError("no"))
        fresh = source.fresh()
        for key in "abc":
            with pytest.raises(DeniedError):
                await fresh.get(key, source.read)
        source.now, source.error = 4.0, None
        await fresh.get("d", source.read)
        assert list(fresh._denied) == []

    run(test)


def test_denials_push_out_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.issuing.fresh._KEPT", 3)

    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        await fresh.get("a", source.read)
        source.error = DeniedError("no")
        for key in "bcdef":
            with pytest.raises(DeniedError):
                await fresh.get(key, source.read)
        assert await fresh.get("a", source.read) == 1

    run(test)


def test_an_asker_that_leaves_stops_no_other() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        source.go_on.clear()
        first, second = (asyncio.create_task(fresh.get("a", source.read)) for _ in range(2))
        await settled()
        first.cancel()
        source.go_on.set()
        assert await second == 1

    run(test)


def test_forgotten_values_are_read_again() -> None:
    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        await fresh.get("a", source.read)
        fresh.forget("a")
        assert await fresh.get("a", source.read) == 2

    run(test)


def test_old_keys_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.issuing.fresh._KEPT", 3)

    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        for key in "abcde":
            await fresh.get(key, source.read)
        assert await fresh.get("e", source.read) == 5
        assert await fresh.get("a", source.read) == 6

    run(test)


def test_a_forgotten_read_is_not_kept() -> None:
    """It may be from before the change."""

    async def test() -> None:
        source = Source()
        fresh = source.fresh()
        source.go_on.clear()
        old = asyncio.create_task(fresh.get("a", source.read))
        while not source.reads:
            await asyncio.sleep(0)
        fresh.forget("a")
        new = asyncio.create_task(fresh.get("a", source.read))
        while source.reads < 2:
            await asyncio.sleep(0)
        source.go_on.set()
        assert (await old, await new, await fresh.get("a", source.read)) == (1, 2, 2)

    run(test)
