"""Evidence in Vault: one create-only document an entry, which no role of ours can overwrite."""

from __future__ import annotations

from collections.abc import Iterator

from broker.errors import ConflictError
from broker.model.evidence import Entry
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded

__all__ = ["ForkedEvidenceError", "VaultEvidence"]


class ForkedEvidenceError(ConflictError):
    """Another entry stands where this one belongs: the chain and the account no longer tell one story."""

    retryable = False


class VaultEvidence:
    """Chains of entries: of accounts, and of processes that issue."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def append(self, entry: Entry) -> None:
        """Store `entry` under its number. The same entry again is no error; another one is `ForkedEvidenceError`."""
        path = layout.evidence(entry.chain, entry.number)
        try:
            self._vault.create(path, encoded(entry))
        except ConflictError:
            if self._read(path) != entry:
                raise ForkedEvidenceError(
                    f"the evidence of {entry.chain} has another entry {entry.number}",
                    hint="was the account restored from a backup? broker evidence verify says where they part",
                ) from None

    def entries(self, chain: str) -> Iterator[Entry]:
        """Yield the stored entries of `chain` in the order of their numbers."""
        for name in self._vault.list(layout.chain(chain)):
            if not name.endswith("/"):
                yield self._read(f"{layout.chain(chain)}/{name}")

    def issuing_chains(self) -> tuple[str, ...]:
        """Return the names of the chains that issuing processes have written."""
        return tuple(f"issued/{name.rstrip('/')}" for name in self._vault.list(layout.ISSUED))

    def _read(self, path: str) -> Entry:
        return decoded(self._vault.read(path).data, Entry, path)
