"""Evidence in Vault: entries, and signed statements of where the chains stood. Our roles create and never overwrite."""

import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final

import msgspec

from broker.errors import ConflictError, InputError, RefusedError
from broker.evidence.statements import AnchorKey, ChainRecord, StoredStatement, VerifyingKey
from broker.model.chain import BATCH, Entry
from broker.model.finding import Finding
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.rotation.ports import ForkedEvidenceError
from broker.telemetry import log
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DamagedDocumentError, decoded, encoded, enveloped, in_base64
from broker.vault.errors import GoneError, MissingError, OversizedError, PassingError
from broker.vault.listing import CHAINS, ISSUED, STATEMENTS, entries_of, listed
from broker.vault.transport import Post

_OCTETS: Final = 32


@dataclass(frozen=True, slots=True)
class _StoredSeed:
    seed: Annotated[bytes, msgspec.Meta(min_length=_OCTETS, max_length=_OCTETS)] = field(repr=False)  # of Ed25519


class VaultEvidence:
    """Chains of entries: of accounts, and of processes that issue."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def append(self, entry: Entry) -> None:
        """Store `entry` under its number. The same entry again is no error; another raises `ForkedEvidenceError`."""
        try:
            self._vault.create(layout.evidence(entry.chain, entry.number), encoded(entry))
        except ConflictError:
            try:
                forked = self.forked(entry)
            except MissingError:
                raise PassingError("a standby has not yet seen our last write", hint="try again") from None
            if forked:
                kind, _, name = entry.chain.partition("/")
                raise ForkedEvidenceError(
                    f"place {entry.number} in the evidence of {entry.chain} is taken by another entry: "
                    "the change is made, and its evidence cannot be stored",
                    hint=f"broker evidence verify {name if kind == 'accounts' else '--all'}",
                ) from None
        _log(entry)

    async def append_on_loop(self, entry: Entry, post: Post) -> bool:
        """Store `entry` on an event loop, by one request; return whether it is stored. If not, `append` is next."""
        stored = await self._vault.create_on_loop(layout.evidence(entry.chain, entry.number), encoded(entry), post)
        if stored:
            _log(entry)
        return stored

    def forked(self, entry: Entry) -> bool:
        """Return whether another document has the place of `entry`; raise `MissingError` if none ever had."""
        try:
            return self._read(layout.evidence(entry.chain, entry.number))[0] != entry
        except (DamagedDocumentError, GoneError, OversizedError):
            return True

    def first(self, account: AccountName) -> Entry:
        """Return the first entry of an account's chain; raise `MissingError`."""
        return self._read(layout.evidence(f"accounts/{account}", 1))[0]

    def issuing_chains(self) -> tuple[str, ...]:
        """Return the names of the chains that issuing processes have written."""
        return tuple(f"issued/{name}" for name in listed(self._vault, ISSUED))

    def chains(self) -> tuple[str, ...]:
        """Return the names of all chains: those of accounts, then those of issuing processes."""
        return tuple(f"accounts/{name}" for name in listed(self._vault, CHAINS)) + self.issuing_chains()

    def kept(self, chain: str, *, since: int = 1) -> ChainRecord:
        """Return the stored entries of `chain` from number `since` on, with findings about unreadable ones.

        A chain with a name that the broker never gives, which a false statement may sign, has no entries.
        """
        entries: list[Entry] = []
        findings: list[Finding] = []
        try:
            folder = entries_of(chain)
        except InputError:
            return ChainRecord(())
        for number in map(layout.place, listed(self._vault, folder)):
            if number >= since:
                self._keep(chain, number, entries, findings)
        return ChainRecord(tuple(entries), findings=tuple(findings))

    def between(self, chain: str, start: datetime, end: datetime, unread: Callable[[str], None]) -> Iterator[Entry]:
        """Yield the entries of `chain` from `start` to `end`, one read each. An entry's number finds its time.

        `unread` is called with a message about each that cannot be read.
        """

        def begins(number: int) -> bool:
            try:
                return self._read(layout.evidence(chain, number))[0].at >= start
            except (MissingError, RefusedError):
                return True  # look further to the left

        numbers = [layout.place(name) for name in listed(self._vault, entries_of(chain))]
        for number in numbers[bisect_left(numbers, True, key=begins) :]:
            try:
                entry = self._read(layout.evidence(chain, number))[0]
            except (MissingError, RefusedError) as error:
                unread(f"{chain} entry {number} cannot be read: {error.message}")
                continue
            if entry.at > end:
                return
            yield entry

    def _keep(self, chain: str, number: int, entries: list[Entry], findings: list[Finding]) -> None:
        where = f"{chain} entry {number}"
        try:
            entry, version = self._read(layout.evidence(chain, number))
        except MissingError:
            findings.append(_finding("deleted", f"{where} was deleted"))
            return
        except RefusedError as error:
            findings.append(_finding("unreadable", f"{where} cannot be read: {error.message}", error.hint))
            return
        entries.append(entry)
        if entry.number != number:
            findings.append(_finding("misplaced", f"{where} says that it is entry {entry.number}: it was moved"))
        if version > 1:
            message = f"{where} was written {version} times; the broker writes once"
            findings.append(Finding.warning("evidence.overwritten", message, "see Vault's audit log for the writer"))

    def _read(self, path: str) -> tuple[Entry, int]:
        stored = self._vault.read(path)
        return decoded(stored.data, Entry, path), stored.version


class VaultStatements:
    """`evidence.statements.Statements` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def key(self) -> AnchorKey:
        """Return the key that signs, making it at the first call; its public half is stored beside the statements.

        Concurrent calls get the same key. Raise `RefusedError` if one of the halves is not as the broker wrote it.
        """
        document = self._vault.adopt(
            layout.signer("anchor"), lambda: enveloped({"seed": in_base64(secrets.token_bytes(_OCTETS))})
        )
        key = AnchorKey(Secret(decoded(document, _StoredSeed, "the key that signs evidence").seed))
        public = self._vault.adopt(layout.ANCHOR_KEY, lambda: encoded(key.verifying.pem))
        if VerifyingKey(decoded(public, str, layout.ANCHOR_KEY)).fingerprint != key.verifying.fingerprint:
            raise RefusedError(
                "the public key in Vault is not that of the key that signs evidence",
                hint="one of them was replaced; verify with the key you kept: broker evidence verify --all --key FILE",
            )
        return key

    def verifying_key(self) -> VerifyingKey | None:
        """Return the key that statements are verified with, None where nothing was ever signed."""
        stored = self._vault.read_or_none(layout.ANCHOR_KEY)
        return VerifyingKey(decoded(stored.data, str, layout.ANCHOR_KEY)) if stored else None

    def statements(self) -> tuple[StoredStatement, ...]:
        """Return all statements, in the order of their places; what cannot be read says so."""
        paths = [f"{layout.HEADS}/{name}" for name in listed(self._vault, STATEMENTS)]
        return tuple(self._statement(path) for path in paths if path != layout.ANCHOR_KEY)

    def add(self, statement: StoredStatement) -> None:
        """Store `statement`; raise `ConflictError` where its place is taken."""
        self._vault.create(layout.head(statement.number), encoded(statement.text))

    def _statement(self, path: str) -> StoredStatement:
        number = layout.place(path.rpartition("/")[2])
        where = f"statement {number}"
        try:
            return StoredStatement(number, decoded(self._vault.read(path).data, str, where))
        except MissingError:
            return StoredStatement(number, "", f"{where} was deleted")
        except RefusedError as error:
            return StoredStatement(number, "", f"{where} cannot be read: {error.message}")


def _log(entry: Entry) -> None:
    facts = {name: fact for name, fact in entry.facts.items() if name != BATCH}  # hundreds of leases
    log.info(entry.what, **{**facts, "chain": entry.chain, "number": entry.number, "by": entry.by})


def _finding(code: str, message: str, hint: str = "") -> Finding:
    hint = hint or "keep what you have and compare it with a backup"
    return Finding.error(f"evidence.{code}", message, hint)
