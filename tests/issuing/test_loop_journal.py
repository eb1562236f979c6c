"""The journal of a service: its chain is whole even if a write fails, or its caller leaves."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import VaultUnavailableError
from broker.issuing.loop_journal import LoopJournal
from broker.model.chain import Entry, verify
from tests.support.accounts import NOW
from tests.support.on_loop import run


class Store:
    """Create-only, as Vault's is; `lost` counts answers that do not arrive."""

    def __init__(self, lost: int = 0) -> None:
        self.entries: dict[int, Entry] = {}
        self.lost = lost
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, entry: Entry) -> None:
        assert self.entries.setdefault(entry.number, entry) == entry, "the chain forked"
        await self.go.wait()
        if self.lost:
            self.lost -= 1
            raise VaultUnavailableError("no answer")

    @property
    def leases(self) -> list[object]:
        assert verify("issued/one", self.entries.values()) == ()
        return [entry.facts["lease"] for entry in self.entries.values()]


def test_unanswered_entry_is_stored_first() -> None:
    async def test() -> None:
        store = Store(lost=2)
        journal = LoopJournal("issued/one", store, lambda: NOW, "tests")
        for lease in ("1", "2"):
            with pytest.raises(VaultUnavailableError):
                await journal.append("bundle-issued", lease=lease)
        await journal.append("bundle-issued", lease="3")
        assert store.leases == ["1", "3"]

    run(test)


def test_a_caller_that_leaves_forks_nothing() -> None:
    async def test() -> None:
        store = Store()
        journal = LoopJournal("issued/one", store, lambda: NOW, "tests")
        store.go.clear()
        leaving = asyncio.create_task(journal.append("bundle-issued", lease="1"))
        while not store.entries:
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        store.go.set()
        await journal.append("bundle-issued", lease="2")
        assert store.leases == ["1", "2"]

    run(test)
