"""Evidence of what was issued: one chain a process, so that none waits for another; stored before the answer leaves."""

import secrets
import threading
from collections.abc import Callable
from datetime import datetime

from broker.model.chain import Entry, Fact, Head, appended
from broker.model.clock import Clock, Stamp


def chain_name(now: datetime) -> str:
    """Return a name that no other process has: its start time and a random part."""
    return f"issued/{now:%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


class Journal:
    """One chain. `append` returns once the entry is stored; if it raises, nothing may be issued."""

    def __init__(self, chain: str, store: Callable[[Entry], None], clock: Clock, by: str) -> None:
        self._chain = chain
        self._store = store
        self._clock = clock
        self._by = by
        self._head = Head()
        self._unsure: Entry | None = None
        self._lock = threading.Lock()

    def append(self, what: str, **facts: Fact) -> Entry:
        """Store the next entry, and return it once it is durable.

        If the answer to an earlier write was lost, that entry is stored first: it may be there already, and another
        one under its number would fork the chain. So evidence can name a bundle that was never delivered, but no
        bundle is delivered without evidence.
        """
        with self._lock:
            if self._unsure:
                self._put(self._unsure)
            entry = appended(self._chain, self._head, Stamp(self._clock(), self._by), what, facts)
            self._put(entry)
            return entry

    def _put(self, entry: Entry) -> None:
        self._unsure = entry
        self._store(entry)
        self._head, self._unsure = Head(entry.number, entry.hash), None
