"""The journal of a service's batches: its event loop stores the entries."""

from collections.abc import Awaitable, Callable

from broker.evidence.journal import ProcessChain
from broker.model.chain import Entry, Fact
from broker.model.clock import Clock


class LoopJournal(ProcessChain):
    """One chain, for one task at a time. `append` returns once the entry is stored; if it raises, nothing is issued."""

    def __init__(self, chain: str, store: Callable[[Entry], Awaitable[None]], clock: Clock, by: str) -> None:
        super().__init__(chain, clock, by)
        self._store = store

    async def append(self, what: str, **facts: Fact) -> None:
        """Store the next entry."""
        for entry in self.due(what, facts):
            await self._store(entry)
