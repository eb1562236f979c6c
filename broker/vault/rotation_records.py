"""Rotation records in Vault: what the scheduler and mail did for each account, under compare-and-set."""

from collections.abc import Callable

from broker.model.names import AccountName
from broker.model.rotation_record import RotationRecord
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document


class VaultRotationRecords:
    """`scheduling.ports.Records` on KV v2. Raises what `documents.decoded` raises."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self, name: AccountName) -> RotationRecord:
        """Return the record of an account, an empty one if there is none."""
        stored = self._vault.read_or_none(layout.rotation(name))
        return _record(name, stored.data if stored else None)

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        """Apply the pure `change` to the newest record, as `Connection.change` does; return the new one.

        Nothing is written if it returns its argument.
        """

        def changed(document: Document | None) -> Document | None:
            before = _record(name, document)
            after = change(before)
            return document if after == before else encoded(after)

        return _record(name, self._vault.change(layout.rotation(name), changed) or None)


def _record(name: AccountName, document: Document | None) -> RotationRecord:
    if document is None:
        return RotationRecord()
    return decoded(document, RotationRecord, f"the rotation record of {name}")
