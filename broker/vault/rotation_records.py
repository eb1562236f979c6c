"""Rotation records in Vault: what the scheduler and mail did for each account."""

from collections.abc import Callable

from broker.model.names import AccountName
from broker.model.rotation_record import RotationRecord
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.stored_value import StoredValue


class VaultRotationRecords:
    """`scheduling.ports.Records` on KV v2. Raises what `documents.decoded` raises."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self, name: AccountName) -> RotationRecord:
        """Return the record of an account, an empty one if there is none."""
        return self._of(name).read()

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        """Apply the pure `change` to the newest record, as `StoredValue.change` does; return the new one."""
        return self._of(name).change(change)

    def _of(self, name: AccountName) -> StoredValue[RotationRecord]:
        return StoredValue(self._vault, layout.rotation(name), f"the rotation record of {name}", RotationRecord())
