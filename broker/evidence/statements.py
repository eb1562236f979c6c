"""Statements: the heads of all chains at one moment, signed by a role that can do nothing else.

A role that may write accounts and evidence can still forge a chain, but the forged chain lacks the head that was
signed. A statement names only the chains that grew since the one before, and has that one's hash: statements are a
chain too. Each is a JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037), which standard tools verify.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.errors import InputError
from broker.model.chain import GENESIS, Entry, Head
from broker.model.finding import Finding
from broker.model.secret import Secret

__all__ = [
    "AnchorKey",
    "SignedStatement",
    "Statement",
    "StoredStatement",
    "VerifyingKey",
    "against_statements",
    "newest_heads",
    "verified",
]

COMPARE: Final = "keep what you have and compare it with an older export"
_ALGORITHM: Final = "EdDSA"
_TYPE: Final = "credential-broker-heads"  # so that no other text signed with this key is taken for a statement
_PEM: Final = serialization.Encoding.PEM
_DER: Final = serialization.Encoding.DER
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class Statement:
    """The heads of chains at one moment. `number` counts statements from 1 without a gap."""

    number: int
    at: datetime
    chains: Mapping[str, Head]  # those that grew since the statement before
    before: str  # the hash of the statement before, GENESIS for the first

    @property
    def content(self) -> bytes:
        """The signed octets: canonical JSON (sorted keys, no blanks, ASCII)."""
        chains = {name: [head.number, head.hash] for name, head in self.chains.items()}
        content = {"number": self.number, "at": self.at.isoformat(), "chains": chains, "before": self.before}
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    def __str__(self) -> str:
        return f"statement {self.number} of {self.at:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """A statement as it is stored: the number of its place, and its signed text, or why that cannot be read."""

    number: int
    text: str
    fault: str = ""

    @property
    def hash(self) -> str:
        """The name of this statement in the next one: SHA-256 of the text, lower-case hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement with a good signature. `hash` is of its signed text: SHA-256, lower-case hex."""

    statement: Statement
    hash: str


class VerifyingKey:
    """The public half of the anchor's key."""

    def __init__(self, pem: str) -> None:
        """Raise `InputError` if `pem` is no Ed25519 public key."""
        try:
            key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise InputError("this is no Ed25519 public key in PEM", hint="broker evidence export --key-to writes one")
        self.key: Final = key

    @property
    def pem(self) -> str:
        """The key as PEM (SubjectPublicKeyInfo)."""
        return self.key.public_bytes(_PEM, _SPKI).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the SPKI, lower-case hex. It is the `kid` of signed statements."""
        return hashlib.sha256(self.key.public_bytes(_DER, _SPKI)).hexdigest()


class AnchorKey:
    """The key that signs statements: 32 octets, the seed of RFC 8032."""

    def __init__(self, seed: Secret[bytes]) -> None:
        """Raise `ValueError` if the seed is not 32 octets long."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed.reveal())

    @property
    def verifying(self) -> VerifyingKey:
        """The public half."""
        return VerifyingKey(self._key.public_key().public_bytes(_PEM, _SPKI).decode())

    def signed(self, statement: Statement) -> StoredStatement:
        """Return `statement` as signed text. The same statement always has the same text."""
        headers = {"kid": self.verifying.fingerprint, "typ": _TYPE}
        return StoredStatement(statement.number, jwt.PyJWS().encode(statement.content, self._key, _ALGORITHM, headers))


def verified(
    stored: Iterable[StoredStatement], key: VerifyingKey
) -> tuple[tuple[SignedStatement, ...], tuple[Finding, ...]]:
    """Return the statements with a good signature, in the order given, and the faults of all as one chain."""
    opened = [_opened(one, key) for one in stored]
    good = tuple(one for one in opened if isinstance(one, SignedStatement))
    faults = tuple(one for one in opened if isinstance(one, Finding))
    return good, faults or tuple(_chain_faults(good))


def newest_heads(signed: Iterable[SignedStatement]) -> dict[str, Head]:
    """Return the last signed head of every chain."""
    heads: dict[str, Head] = {}
    for one in signed:
        heads |= one.statement.chains
    return heads


def against_statements(chain: str, entries: Sequence[Entry], signed: Iterable[SignedStatement]) -> tuple[Finding, ...]:
    """Return the first place where `entries`, the whole of `chain`, differ from a signed head."""
    hashes = {entry.number: entry.hash for entry in entries}
    last, sound = max(hashes, default=0), 0
    for statement in (one.statement for one in signed if chain in one.statement.chains):
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


def _chain_faults(signed: Iterable[SignedStatement]) -> Iterator[Finding]:
    reached, before, heads = 0, GENESIS, dict[str, Head]()
    for one in signed:
        statement = one.statement
        if statement.number != reached + 1:
            yield _fault("gap", f"{statement} follows statement {reached}: missing or reordered")
        elif statement.before != before:
            yield _fault("broken", f"{statement} does not follow the one before it: one was replaced")
        for chain, head in sorted(statement.chains.items()):
            if head.number <= heads.get(chain, Head()).number:
                yield _fault("shrank", f"{statement} signs {chain} at entry {head.number}: it went back")
        reached, before = statement.number, one.hash
        heads |= statement.chains


def _opened(stored: StoredStatement, key: VerifyingKey) -> SignedStatement | Finding:
    where = f"statement {stored.number}"
    if stored.fault:
        return _fault("unreadable", stored.fault)
    try:
        header = jwt.get_unverified_header(stored.text)
        if header.get("kid") != key.fingerprint:
            return _fault("key", f"{where} is signed with another key than {key.fingerprint[:16]}…")
        text = jwt.PyJWS().decode_complete(stored.text, key.key, [_ALGORITHM])
    except jwt.InvalidTokenError:
        return _fault("edited", f"{where} was edited: its signature does not fit")
    statement = _parsed(text["payload"])
    if header.get("typ") != _TYPE or statement is None:
        return _fault("unreadable", f"{where} is in another format: a newer broker wrote it, or it was replaced")
    if statement.number != stored.number:
        return _fault("misplaced", f"{where} says that it is statement {statement.number}: it was moved or copied")
    return SignedStatement(statement, stored.hash)


class _Claims(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    at: datetime
    chains: dict[str, tuple[int, str]]
    before: str


def _parsed(payload: bytes) -> Statement | None:
    try:
        claims = msgspec.json.decode(payload, type=_Claims)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    heads = {name: Head(number, hash_) for name, (number, hash_) in claims.chains.items()}
    return Statement(claims.number, claims.at, heads, claims.before)


def _fault(code: str, message: str) -> Finding:
    return Finding.error(f"anchor.{code}", message, COMPARE)
