"""Consumers' records in Vault: the leases that each holds, and those that were revoked."""

from collections.abc import Callable

from broker.model.lease import ConsumerRecord
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document
from broker.vault.listing import CONSUMERS, Documents, documents


class VaultConsumers:
    """`issuing.grant.Consumers` on KV v2. `announce` is called with the path of a record that got a revocation."""

    def __init__(self, vault: Connection, announce: Callable[[str], None] = lambda _: None) -> None:
        self._vault = vault
        self._announce = announce

    def all(self) -> Documents[ConsumerRecord]:
        """Return every readable record by entity, and findings about the others."""
        return documents(self._vault, CONSUMERS, self._read, "consumer.unreadable")

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to the record of `entity`, a new one at first, as `Connection.change` does."""
        path, revoked = layout.consumer(entity), False

        def changed(document: Document | None) -> Document:
            nonlocal revoked
            before = _record(entity, document) if document else ConsumerRecord(entity, name)
            after = change(before)
            revoked = after.revocations != before.revocations
            return encoded(after)

        stored = _record(entity, self._vault.change(path, changed))
        if revoked:
            self._announce(path)
        return stored

    def read(self, entity: str) -> ConsumerRecord | None:
        """Return the record of `entity`, None if there is none."""
        stored = self._vault.read_or_none(layout.consumer(entity))
        return _record(entity, stored.data) if stored else None

    def _read(self, entity: str) -> ConsumerRecord:
        return _record(entity, self._vault.read(layout.consumer(entity)).data)


def _record(entity: str, document: Document) -> ConsumerRecord:
    return decoded(document, ConsumerRecord, f"consumer {entity}")
