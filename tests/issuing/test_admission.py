"""A flood of callers without a known right leaves room for those who have one."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import DeniedError, VaultUnavailableError
from broker.issuing.admission import Admission
from tests.support.on_loop import run


class Judge:
    """Judgements that wait until `go_on` is set. Callers whose name begins with "a" have a right."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.go_on = asyncio.Event()
        self.judging = 0

    async def ask(self, name: str, group: str = "") -> str:
        async def judge() -> str:
            self.judging += 1
            await self.go_on.wait()
            self.judging -= 1
            if not name.startswith("a"):
                raise DeniedError("no")
            return name

        return await self.admission.admit(name.encode(), judge, group)

    def flood(self, count: int) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.ask(f"stranger {n}")) for n in range(count)]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def known(judge: Judge, *names: str) -> None:
    judge.go_on.set()
    for name in names:
        await judge.ask(name)
    judge.go_on.clear()


def test_few_strangers_are_judged_at_a_time() -> None:
    async def test() -> None:
        judge = Judge(Admission(2, 100))
        flood = judge.flood(50)
        await settled()
        assert judge.judging == 2
        judge.go_on.set()
        assert all(isinstance(one, DeniedError) for one in await asyncio.gather(*flood, return_exceptions=True))

    run(test)


def test_a_known_caller_passes_a_flood() -> None:
    async def test() -> None:
        judge = Judge(Admission(1, 1))
        await known(judge, "a")
        flood = judge.flood(50)
        await settled()
        asking = asyncio.create_task(judge.ask("a"))
        await settled()
        assert judge.judging == 2
        judge.go_on.set()
        assert await asking == "a"
        ended = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(one, VaultUnavailableError) for one in ended) == 48

    run(test)


def test_who_is_refused_is_a_stranger_again() -> None:
    async def test() -> None:
        judge = Judge(Admission(1, 0))
        await known(judge, "a")

        async def denied() -> str:
            raise DeniedError("no more")

        with pytest.raises(DeniedError):
            await judge.admission.admit(b"a", denied)
        flood = judge.flood(1)
        await settled()
        with pytest.raises(VaultUnavailableError):
            await judge.ask("a")
        judge.go_on.set()
        await asyncio.gather(*flood, return_exceptions=True)

    run(test)


def test_a_stranger_that_leaves_makes_room() -> None:
    async def test() -> None:
        judge = Judge(Admission(1, 1))
        flood = judge.flood(2)
        await settled()
        for one in flood:
            one.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        judge.go_on.set()
        assert await judge.ask("a") == "a"

    run(test)


def test_the_oldest_known_caller_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.issuing.admission._KNOWN", 2)

    async def test() -> None:
        judge = Judge(Admission(1, 0))
        await known(judge, "a1", "a2", "a1", "a3")
        flood = judge.flood(1)
        await settled()
        with pytest.raises(VaultUnavailableError):
            await judge.ask("a2")
        judge.go_on.set()
        assert [await judge.ask(name) for name in ("a1", "a3")] == ["a1", "a3"]
        await asyncio.gather(*flood, return_exceptions=True)

    run(test)


def test_a_slow_issuer_delays_no_other() -> None:
    async def test() -> None:
        judge = Judge(Admission(4, 100))
        stuck = [asyncio.create_task(judge.ask(f"a{n}", "slow")) for n in range(10)]
        await settled()
        assert judge.judging == 2
        other = asyncio.create_task(judge.ask("another", "quick"))
        await settled()
        assert judge.judging == 3
        judge.go_on.set()
        assert await other == "another"
        await asyncio.gather(*stuck)

    run(test)
