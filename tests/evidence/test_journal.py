"""Evidence of what was issued: one chain a process, whole even if a write fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from broker.errors import VaultUnavailableError
from broker.evidence.journal import Journal, chain_name
from broker.model.chain import Entry, verify

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """Create-only, as Vault's is; `lost` counts answers that do not arrive, `refused` writes that do not."""

    def __init__(self, *, lost: int = 0, refused: int = 0) -> None:
        self.entries: dict[int, Entry] = {}
        self.lost = lost
        self.refused = refused

    def __call__(self, entry: Entry) -> None:
        if self.refused:
            self.refused -= 1
            raise VaultUnavailableError("away")
        assert self.entries.setdefault(entry.number, entry) == entry, "the chain forked"
        if self.lost:
            self.lost -= 1
            raise VaultUnavailableError("no answer")

    @property
    def whats(self) -> list[str]:
        return [entry.what for entry in self.entries.values()]


def a_journal(store: Callable[[Entry], None]) -> Journal:
    return Journal("issued/one", store, lambda: NOW, "tests")


def test_entries_follow_each_other() -> None:
    store = Store()
    journal = a_journal(store)
    journal.append("bundle-issued", lease="1")
    journal.append("bundle-returned", lease="1")
    assert store.whats == ["bundle-issued", "bundle-returned"]
    assert verify("issued/one", store.entries.values()) == ()


@pytest.mark.parametrize("how", [{"lost": 1}, {"refused": 1}, {"lost": 2}, {"refused": 3}])
def test_unanswered_entry_is_stored_first(how: dict[str, int]) -> None:
    store = Store(**how)
    journal = a_journal(store)
    for _ in range(sum(how.values())):
        with pytest.raises(VaultUnavailableError):
            journal.append("bundle-issued", lease="1")
    journal.append("bundle-issued", lease="2")
    assert [entry.facts["lease"] for entry in store.entries.values()] == ["1", "2"]
    assert verify("issued/one", store.entries.values()) == ()


def test_no_two_processes_share_a_chain() -> None:
    assert len({chain_name(NOW) for _ in range(1000)}) == 1000
