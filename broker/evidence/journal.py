"""Evidence of what was issued: a chain a process, so that two never contend; durable before the answer leaves."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import datetime

from broker.model.chain import Entry, Fact, Head, appended
from broker.model.clock import Clock
from broker.model.stamp import Stamp

__all__ = ["Journal", "chain_name"]


def chain_name(now: datetime) -> str:
    """Return a name no other process has: when it began, and something random."""
    return f"issued/{now:%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


class Journal:
    """One chain. `append` returns once the entry is stored; what it raises means: not issued."""

    def __init__(self, chain: str, store: Callable[[Entry], None], clock: Clock, by: str) -> None:
        self._chain = chain
        self._store = store
        self._clock = clock
        self._by = by
        self._head = Head()
        self._unsure: Entry | None = None
        self._turn = threading.Lock()

    def append(self, what: str, **facts: Fact) -> Entry:
        """Store the next entry, and return it once it is durable.

        Where the answer to an earlier write was lost, that entry goes first: it may be there already, and another one
        under its number would fork the chain. So evidence may tell of a bundle that nobody got, never the reverse.
        """
        with self._turn:
            if self._unsure:
                self._put(self._unsure)
            entry = appended(self._chain, self._head, Stamp(self._clock(), self._by), what, facts)
            self._put(entry)
            return entry

    def _put(self, entry: Entry) -> None:
        self._unsure = entry
        self._store(entry)
        self._head, self._unsure = Head(entry.number, entry.hash), None
