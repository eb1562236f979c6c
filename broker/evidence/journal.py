"""Evidence of what was issued: a process has chains of its own, waits for no other, and stores before it answers."""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from broker.model.chain import Entry, Fact, Head, appended
from broker.model.clock import Clock, Stamp


def chain_name(now: datetime) -> str:
    """Return a name that no other process has: its start time and a random part."""
    return f"issued/{now:%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


class ProcessChain:
    """A chain that one process writes, as its journal knows it.

    If the answer to an earlier write was lost, that entry is stored first: it may be there already, and another one
    under its number would fork the chain. So evidence can name a bundle that was never delivered, but no bundle is
    delivered without evidence.
    """

    def __init__(self, chain: str, clock: Clock, by: str) -> None:
        self._chain = chain
        self._clock = clock
        self._by = by
        self._head = Head()
        self._unsure: Entry | None = None

    def due(self, what: str, facts: Mapping[str, Fact]) -> Iterator[Entry]:
        """Yield the entries to store, the new one last. Ask for the next one only when the last one is durable."""
        if self._unsure:
            yield from self._sure(self._unsure)
        yield from self._sure(appended(self._chain, self._head, Stamp(self._clock(), self._by), what, facts))

    def _sure(self, entry: Entry) -> Iterator[Entry]:
        self._unsure = entry
        yield entry
        self._head, self._unsure = Head(entry.number, entry.hash), None


class Journal(ProcessChain):
    """One chain, for threads. `append` returns once the entry is stored; if it raises, nothing may be issued."""

    def __init__(self, chain: str, store: Callable[[Entry], None], clock: Clock, by: str) -> None:
        super().__init__(chain, clock, by)
        self._store = store
        self._lock = threading.Lock()

    def append(self, what: str, **facts: Fact) -> None:
        """Store the next entry."""
        with self._lock:
            for entry in self.due(what, facts):
                self._store(entry)
