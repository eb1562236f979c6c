"""Statements: the heads of all chains at one moment, signed by a role that can do nothing else; make and verify them.

A role that may write accounts and evidence can still forge a chain, but the forged chain lacks the head that was
signed. A statement names only the chains that grew since the one before, and has that one's hash: statements are a
chain too. Each is a JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037), which standard tools verify.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final, Protocol

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Struct

from broker.errors import ConflictError, InputError
from broker.model.chain import GENESIS, Entry, Head, verify
from broker.model.clock import Clock
from broker.model.finding import Finding, has_errors, refuse_errors
from broker.model.secret import Secret
from broker.typed import from_json

ATTEMPTS: Final = 8
LARGEST: Final = 4096  # chains in one statement: half a megabyte, which Vault on raft accepts
COMPARE: Final = "keep what you have and compare it with an older export"
_ALGORITHM: Final = "EdDSA"
_TYPE: Final = "credential-broker-heads"  # so that no other text signed with this key is taken for a statement


class Statement(Struct, frozen=True):
    """The heads of chains at one moment. `number` counts statements from 1 without a gap."""

    number: int
    at: datetime
    chains: Mapping[str, Head]  # those that grew since the statement before
    before: str  # the hash of the statement before, GENESIS for the first
    hash: str = ""  # of its signed text, once the signature is verified

    @property
    def content(self) -> bytes:
        """The signed octets: canonical JSON (sorted keys, no blanks, ASCII)."""
        chains = {name: [head.number, head.hash] for name, head in self.chains.items()}
        content = {"number": self.number, "at": self.at.isoformat(), "chains": chains, "before": self.before}
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    def __str__(self) -> str:
        return f"statement {self.number} of {self.at:%Y-%m-%dT%H:%M:%SZ}"


class StoredStatement(Struct, frozen=True):
    """A statement as it is stored: the number of its place, and its signed text, or why that cannot be read."""

    number: int
    text: str
    fault: str = ""

    @property
    def hash(self) -> str:
        """The name of this statement in the next one: SHA-256 of the text, lower-case hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class ChainRecord(Struct, frozen=True):
    """One chain as it is stored, and what could not be read; `head` is the account document's, None without one."""

    entries: tuple[Entry, ...]
    head: Head | None = None
    findings: tuple[Finding, ...] = ()


class Chains(Protocol):
    """The stored chains."""

    def chains(self) -> Iterable[str]:
        """Return the names of all chains."""

    def kept(self, chain: str, *, since: int = 1) -> ChainRecord:
        """Return the entries of `chain` from number `since` on, in the order of their places."""


class Statements(Protocol):
    """The stored statements, each written once, and the key that verifies them."""

    def statements(self) -> tuple[StoredStatement, ...]:
        """Return all statements, in the order of their places."""

    def add(self, statement: StoredStatement) -> None:
        """Store `statement` at its place; raise `ConflictError` if the place is taken."""

    def verifying_key(self) -> VerifyingKey | None:
        """Return the public key, None if nothing was signed yet."""


class VerifyingKey:
    """The public half of the anchor's key."""

    def __init__(self, pem: str) -> None:
        """Raise `InputError` if `pem` is no Ed25519 public key."""
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(
                "this is no Ed25519 public key in PEM",
                hint="broker evidence anchor makes one; broker evidence export FILE --key-to PATH writes it",
            )
        self.key: Final = key
        self.pem: Final = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        # SHA-256 of the SPKI, lower-case hex. It is the `kid` of signed statements.
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint: Final = hashlib.sha256(spki).hexdigest()


class AnchorKey:
    """The key that signs statements: 32 octets, the seed of RFC 8032."""

    def __init__(self, seed: Secret[bytes]) -> None:
        """Raise `ValueError` if the seed is not 32 octets long."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed.reveal())
        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.verifying: Final = VerifyingKey(pem.decode())

    def signed(self, statement: Statement) -> StoredStatement:
        """Return `statement` as signed text. The same statement always has the same text."""
        headers = {"kid": self.verifying.fingerprint, "typ": _TYPE}
        return StoredStatement(statement.number, jwt.PyJWS().encode(statement.content, self._key, _ALGORITHM, headers))


class Anchored(Struct, frozen=True):
    """The result of signing: numbers of new statements, of the newest, and why a chain was not signed."""

    made: tuple[int, ...]
    newest: int
    key: VerifyingKey
    findings: tuple[Finding, ...]


def anchor(key: AnchorKey, store: Statements, chains: Chains, clock: Clock) -> Anchored:
    """Write the next statement. Concurrent runs sign nothing twice; a killed run leaves a statement or none.

    A chain that lacks the head signed before, or does not hold together since, keeps its old head and is reported, so
    that one damaged chain does not stop the others. Raise `FindingsError` if the statements themselves are damaged:
    signing after them would make them look whole.
    """
    made: list[int] = []
    conflicts = 0
    while conflicts < ATTEMPTS:
        signed, faults = verified(store.statements(), key.verifying)
        refuse_errors("the signed statements", faults)
        moved, findings = _moved(newest_heads(signed), chains)
        if not moved:
            return Anchored(tuple(made), len(signed), key.verifying, findings)
        heads = dict(islice(sorted(moved.items()), LARGEST))
        statement = Statement(len(signed) + 1, clock(), heads, signed[-1].hash if signed else GENESIS)
        try:
            store.add(key.signed(statement))
        except ConflictError:  # another run, or this one's own write whose answer was lost: read again
            conflicts += 1
        else:
            made.append(statement.number)
    raise ConflictError("other runs kept signing at the same time", hint="run it once an hour")


def verified(stored: Iterable[StoredStatement], key: VerifyingKey) -> tuple[tuple[Statement, ...], tuple[Finding, ...]]:
    """Return the statements with a good signature, in the order given, and the faults of all as one chain."""
    opened = [_opened(one, key) for one in stored]
    good = tuple(one for one in opened if isinstance(one, Statement))
    faults = tuple(one for one in opened if isinstance(one, Finding))
    return good, faults or tuple(_chain_faults(good))


def newest_heads(signed: Iterable[Statement]) -> dict[str, Head]:
    """Return the last signed head of every chain."""
    return {chain: head for one in signed for chain, head in one.chains.items()}


def against_statements(chain: str, entries: Sequence[Entry], signed: Iterable[Statement]) -> tuple[Finding, ...]:
    """Return the first place where `entries`, the whole of `chain`, differ from a signed head."""
    hashes = {entry.number: entry.hash for entry in entries}
    last, sound = max(hashes, default=0), 0
    for statement in (one for one in signed if chain in one.chains):
        head = statement.chains[chain]
        if head.number not in hashes:
            how = "the tail was cut" if last < head.number else f"entry {head.number} is missing"
            message = f"{chain} ends at entry {last}, but {statement} signed its entry {head.number}: {how}"
            return (Finding.error("evidence.cut", message, COMPARE),)
        if hashes[head.number] != head.hash:
            how = f"the chain forked after entry {sound}" if sound else "the chain was rewritten"
            message = f"{chain} entry {head.number} differs from the one that {statement} signed: {how}"
            return (Finding.error("evidence.forked", message, COMPARE),)
        sound = head.number
    return ()


def _moved(signed: dict[str, Head], chains: Chains) -> tuple[dict[str, Head], tuple[Finding, ...]]:
    """Return the new heads of sound chains that are longer than `signed` says, and the faults of the others."""
    moved: dict[str, Head] = {}
    findings: list[Finding] = []
    for chain in sorted({*chains.chains(), *signed}):
        start = signed.get(chain, Head())
        kept = chains.kept(chain, since=max(start.number, 1))
        faults = [*kept.findings, *_faults_since(chain, kept.entries, start)]
        findings += faults
        newest = Head(kept.entries[-1].number, kept.entries[-1].hash) if kept.entries else start
        if newest.number > start.number and not has_errors(faults):
            moved[chain] = newest
    return moved, tuple(findings)


def _faults_since(chain: str, entries: Sequence[Entry], start: Head) -> tuple[Finding, ...]:
    if start == Head():
        return verify(chain, entries)
    if not entries or Head(entries[0].number, entries[0].expected_hash) != start:
        message = f"{chain} no longer has the signed entry {start.number}: it was cut or rewritten"
        return (Finding.error("evidence.forked", message, "broker evidence verify --all shows where"),)
    return verify(chain, entries[1:], start=start)


class _Claims(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    at: datetime
    chains: dict[str, tuple[int, str]]
    before: str


def _chain_faults(signed: Iterable[Statement]) -> Iterator[Finding]:
    reached, before, heads = 0, GENESIS, dict[str, Head]()
    for statement in signed:
        if statement.number != reached + 1:
            yield _fault("gap", f"{statement} follows statement {reached}: missing or reordered")
        elif statement.before != before:
            yield _fault("broken", f"{statement} does not follow the one before it: one was replaced")
        for chain, head in sorted(statement.chains.items()):
            if head.number <= heads.get(chain, Head()).number:
                yield _fault("shrank", f"{statement} signs {chain} at entry {head.number}: it went back")
        reached, before = statement.number, statement.hash
        heads |= statement.chains


def _opened(stored: StoredStatement, key: VerifyingKey) -> Statement | Finding:
    where = f"statement {stored.number}"
    if stored.fault:
        return _fault("unreadable", stored.fault)
    try:
        header = jwt.get_unverified_header(stored.text)
        if header.get("kid") != key.fingerprint:
            return _fault("key", f"{where} is signed with another key than {key.fingerprint[:16]}…")
        payload = jwt.PyJWS().decode_complete(stored.text, key.key, [_ALGORITHM])["payload"]
        claims = from_json(payload, _Claims)
    except jwt.InvalidTokenError:
        return _fault("edited", f"{where} was edited: its signature does not fit")
    except (msgspec.DecodeError, UnicodeDecodeError):
        claims = None
    if header.get("typ") != _TYPE or claims is None:
        return _fault("unreadable", f"{where} is in another format: a newer broker wrote it, or it was replaced")
    if claims.number != stored.number:
        return _fault("misplaced", f"{where} says that it is statement {claims.number}: it was moved or copied")
    heads = {name: Head(number, hash_) for name, (number, hash_) in claims.chains.items()}
    return Statement(claims.number, claims.at, heads, claims.before, stored.hash)


def _fault(code: str, message: str) -> Finding:
    return Finding.error(f"anchor.{code}", message, COMPARE)
