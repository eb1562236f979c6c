"""Consumers' records in Vault: the leases that each holds, and those that were revoked."""

from collections.abc import Callable

from broker.model.compare_and_set import compare_and_set
from broker.model.holdings import ConsumerRecord, StoredRecord
from broker.vault import layout
from broker.vault.changes import Announcements
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document
from broker.vault.listing import CONSUMERS, Documents, documents

Change = Callable[[ConsumerRecord], ConsumerRecord]


class VaultConsumers:
    """`issuing.grant.Consumers` on KV v2. With `announces`, a change that revokes a lease is announced (ADR 29)."""

    def __init__(self, vault: Connection, *, announces: bool = False) -> None:
        self._vault = vault
        self._announcements = Announcements(vault) if announces else None

    def all(self) -> Documents[ConsumerRecord]:
        """Return every readable record by entity, and findings about the others."""
        return documents(self._vault, CONSUMERS, self._read, "consumer.unreadable")

    def change(self, entity: str, name: str, change: Change) -> ConsumerRecord:
        """Apply the pure `change` to the record of `entity`, a new one at first, as `compare_and_set` does."""
        return self.change_known(entity, name, change, None).record

    def change_known(self, entity: str, name: str, change: Change, known: StoredRecord | None) -> StoredRecord:
        """As `change`, in one request if `known` is the newest record. Only a write proves that it is."""
        path, new = layout.consumer(entity), ConsumerRecord(entity, name)
        guesses = [known] if known and change(known.record) != known.record else []
        seen: StoredRecord | None = None
        made: StoredRecord | None = None  # not what others made of it since: a lease has the epoch of its own write

        def read() -> tuple[ConsumerRecord | None, int]:
            nonlocal seen
            seen = guesses.pop() if guesses else self._stored(entity)
            return (seen.record, seen.version) if seen else (None, 0)

        def write(record: ConsumerRecord | None, version: int) -> None:
            nonlocal made
            self._write(path, seen.record if seen else new, record or new, version)
            made = StoredRecord(record or new, version + 1)

        def changed(found: ConsumerRecord | None) -> ConsumerRecord | None:
            wanted = change(found or new)
            return wanted if found or wanted != new else None  # nothing is stored for nothing

        def landed(record: ConsumerRecord | None, version: int) -> bool:
            nonlocal made
            if not self._vault.landed(path, encoded(record), version):
                return False
            made = StoredRecord(record or new, version + 1)
            return True

        record = compare_and_set(path, read, write, landed, changed)
        return made or StoredRecord(record or new, seen.version if seen else 0)

    def read(self, entity: str) -> ConsumerRecord | None:
        """Return the record of `entity`, None if there is none."""
        stored = self._stored(entity)
        return stored.record if stored else None

    def _write(self, path: str, before: ConsumerRecord, after: ConsumerRecord, version: int) -> None:
        revokes = version > 0 and before.revocations != after.revocations
        if self._announcements and revokes:
            self._announcements.begin(path, version)
        self._vault.write(path, encoded(after), replacing=version)
        if self._announcements and revokes:
            self._announcements.done(path, version)

    def _stored(self, entity: str) -> StoredRecord | None:
        stored = self._vault.read_or_none(layout.consumer(entity))
        return StoredRecord(_record(entity, stored.data), stored.version) if stored else None

    def _read(self, entity: str) -> ConsumerRecord:
        return _record(entity, self._vault.read(layout.consumer(entity)).data)


def _record(entity: str, document: Document) -> ConsumerRecord:
    return decoded(document, ConsumerRecord, f"consumer {entity}")
