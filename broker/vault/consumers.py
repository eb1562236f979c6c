"""Documents of what consumers hold, one for each consumer."""

from __future__ import annotations

from collections.abc import Callable

from broker.model.consumer import ConsumerRecord
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document
from broker.vault.listing import CONSUMERS, Documents, documents


class VaultConsumers:
    """`issuing.grant.Consumers` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def all(self) -> Documents[ConsumerRecord]:
        """Return every readable record by entity, and findings about the others."""
        return documents(self._vault, CONSUMERS, self._read, "consumer.unreadable")

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to the record of `entity`, a new one at first, as `Connection.change` does."""

        def changed(document: Document | None) -> Document:
            return encoded(change(_record(entity, document) if document else ConsumerRecord(entity, name)))

        return _record(entity, self._vault.change(layout.consumer(entity), changed))

    def _read(self, entity: str) -> ConsumerRecord:
        return _record(entity, self._vault.read(layout.consumer(entity)).data)


def _record(entity: str, document: Document) -> ConsumerRecord:
    return decoded(document, ConsumerRecord, f"consumer {entity}")
