"""The accounts that are idle today, in Vault: what a sweep need not read again. A hint: without it, all are read."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Final

from msgspec import Struct

from broker.model.names import AccountName
from broker.rotation.ports import Version
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DamagedDocumentError, decoded, encoded

_LARGEST: Final = 500_000  # characters, some 20,000 accounts: Vault takes a megabyte; the others are read each time
_ENTRY: Final = re.compile(r"(\S+)=([1-9][0-9]*)")


class _IdleAccounts(Struct, frozen=True):
    """NAME=VERSION of each, as one text: OpenBao takes no document of more than 1,000 strings."""

    day: str
    versions: str


class VaultIdle:
    """`scheduling.ports.Idle` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self, day: date) -> Mapping[AccountName, Version]:
        """Return those of `day`; none if the document is of another day, or damaged."""
        stored = self._vault.read_or_none(layout.IDLE)
        try:
            found = decoded(stored.data, _IdleAccounts, "the list of idle accounts") if stored else None
        except DamagedDocumentError:
            return {}
        if found is None or found.day != str(day):
            return {}
        return {AccountName(name): Version(int(number)) for name, number in _ENTRY.findall(found.versions)}

    def write(self, day: date, versions: Mapping[AccountName, Version]) -> None:
        """Store those of `day`. Two leaders at the same time: the last one counts, and both were right."""
        text = " ".join(f"{name}={version}" for name, version in versions.items())
        if len(text) > _LARGEST:
            text = text[:_LARGEST].rpartition(" ")[0]
        self._vault.change(layout.IDLE, lambda _: encoded(_IdleAccounts(str(day), text)))
