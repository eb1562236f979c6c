"""Reading a part of a chain: the entries of a period, found without reading those before."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from broker.model.chain import Entry, Head, appended
from broker.model.clock import Stamp
from broker.vault.connection import Stored
from broker.vault.documents import encoded
from broker.vault.errors import MissingError
from broker.vault.evidence import VaultEvidence
from tests.support.accounts import NOW, later

CHAIN = "issued/one"


@dataclass
class Documents:
    """A connection that has the entries of one chain, an hour apart, and counts what is read."""

    entries: list[Entry]
    missing: frozenset[int] = frozenset()
    read_: list[str] = field(default_factory=list)

    def list(self, path: str) -> tuple[str, ...]:
        return tuple(f"{entry.number:08d}" for entry in self.entries)

    def read(self, path: str) -> Stored:
        self.read_.append(path)
        entry = self.entries[int(path.rpartition("/")[2]) - 1]
        if entry.number in self.missing:
            raise MissingError(f"nothing at {path}")
        return Stored(encoded(entry), 1)


def a_chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    head = Head()
    for number in range(length):
        entries.append(appended(CHAIN, head, Stamp(later(hours=number), "server"), "bundle-issued", {}))
        head = Head(entries[-1].number, entries[-1].hash)
    return entries


def between(documents: Documents, start: int, end: int, said: list[str] | None = None) -> list[int]:
    evidence = VaultEvidence(documents)  # type: ignore[arg-type]
    period = NOW + timedelta(hours=start), NOW + timedelta(hours=end)
    return [entry.number - 1 for entry in evidence.between(CHAIN, *period, (said or []).append)]


@pytest.mark.parametrize(
    ("start", "end"), [(0, 0), (3, 5), (-9, 2), (998, 2000), (2000, 3000), (-9, -1), (0, 999), (500, 499)]
)
def test_exactly_the_entries_of_a_period_are_read(start: int, end: int) -> None:
    assert between(Documents(a_chain(1000)), start, end) == [n for n in range(1000) if start <= n <= end]


def test_entries_before_a_period_are_not_read() -> None:
    documents = Documents(a_chain(1000))
    between(documents, 900, 905)
    assert len(documents.read_) < 20


def test_a_missing_entry_hides_no_other() -> None:
    said: list[str] = [""]
    documents = Documents(a_chain(16), missing=frozenset({9, 11}))
    assert between(documents, 9, 12, said) == [9, 11, 12]
    assert any("issued/one entry 11 cannot be read" in text for text in said)
