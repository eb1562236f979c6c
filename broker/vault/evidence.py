"""Evidence in Vault: one create-only document an entry, which no role of ours can overwrite."""

from __future__ import annotations

from collections.abc import Iterator

from broker.errors import ConflictError, RefusedError
from broker.issuing.anchoring import Kept
from broker.model.evidence import Entry
from broker.model.finding import Finding
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DamagedDocumentError, decoded, encoded
from broker.vault.faults import MissingError

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
            if self._read(path)[0] != entry:
                raise ForkedEvidenceError(
                    f"the evidence of {entry.chain} has another entry {entry.number}",
                    hint="was the account restored from a backup? broker evidence verify says where they part",
                ) from None

    def entries(self, chain: str) -> Iterator[Entry]:
        """Yield the stored entries of `chain` in the order of their numbers."""
        for name in self._vault.list(layout.chain(chain)):
            if not name.endswith("/"):
                yield self._read(f"{layout.chain(chain)}/{name}")[0]

    def issuing_chains(self) -> tuple[str, ...]:
        """Return the names of the chains that issuing processes have written."""
        return tuple(f"issued/{name.rstrip('/')}" for name in self._vault.list(layout.ISSUED))

    def chains(self) -> tuple[str, ...]:
        """Return the names of all chains: those of accounts, then those of issuing processes."""
        accounts = tuple(f"accounts/{name.rstrip('/')}" for name in self._vault.list(layout.EVIDENCE))
        return accounts + self.issuing_chains()

    def kept(self, chain: str, *, since: int = 1) -> Kept:
        """Return the stored entries of `chain` from number `since` on; what cannot be read is said, not raised."""
        entries: list[Entry] = []
        findings: list[Finding] = []
        for name in self._vault.list(layout.chain(chain)):
            if not name.isdecimal():
                findings.append(_finding("stray", f"{chain} holds {name!r}, which is no entry"))
            elif int(name) >= since:
                self._keep(chain, name, entries, findings)
        return Kept(tuple(entries), tuple(findings))

    def _keep(self, chain: str, name: str, entries: list[Entry], findings: list[Finding]) -> None:
        where = f"{chain} entry {int(name)}"
        try:
            entry, version = self._read(f"{layout.chain(chain)}/{name}")
        except MissingError:
            findings.append(_finding("deleted", f"{where} was deleted"))
            return
        except RefusedError as error:
            findings.append(_finding("unreadable", f"{where} cannot be read: {error.what}", error.hint))
            return
        entries.append(entry)
        if entry.number != int(name):
            findings.append(_finding("misplaced", f"{where} says that it is entry {entry.number}: it was moved"))
        if version > 1:
            sentence = f"{where} was written {version} times, and the broker writes once"
            findings.append(Finding.warning("evidence.overwritten", sentence, "Vault's audit log says by whom"))

    def _read(self, path: str) -> tuple[Entry, int]:
        stored = self._vault.read(path)
        entry = decoded(stored.data, Entry, path)
        if entry.at.tzinfo is None:
            raise DamagedDocumentError(f"{path} has a time without a zone")
        return entry, stored.version


def _finding(code: str, sentence: str, mend: str = "") -> Finding:
    mend = mend or "keep what you have and compare it with a backup"
    return Finding.error(f"evidence.{code}", sentence, mend)
