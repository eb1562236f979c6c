"""What consumers hold, a small document each."""

from __future__ import annotations

from collections.abc import Callable

from broker.errors import ConflictError
from broker.model.consumer import ConsumerRecord
from broker.rotation.amend import turns
from broker.vault import layout
from broker.vault.bounds import write_bounded
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.listing import CONSUMERS, Documents, documents

__all__ = ["VaultConsumers"]


class VaultConsumers:
    """`issuing.ports.Consumers` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def all(self) -> Documents[ConsumerRecord]:
        """Return every record that can be read, by entity, and findings about the others."""
        return documents(self._vault, CONSUMERS, self._read, "consumer.unreadable")

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to the consumer's record, making one first; run it again on whatever won."""
        for _ in turns():
            stored = self._vault.read_or_none(layout.consumer(entity))
            where = f"consumer {entity}"
            seen = decoded(stored.data, ConsumerRecord, where) if stored else ConsumerRecord(entity, name)
            wanted = change(seen)
            if stored and wanted == seen:
                return seen
            try:
                write_bounded(
                    self._vault, layout.consumer(entity), encoded(wanted), replacing=stored.version if stored else 0
                )
            except ConflictError:
                continue
            return wanted
        raise ConflictError(f"the record of consumer {entity} kept changing under us")

    def _read(self, entity: str) -> ConsumerRecord:
        return decoded(self._vault.read(layout.consumer(entity)).data, ConsumerRecord, f"consumer {entity}")
