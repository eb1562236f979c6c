"""Statements as signed text: a JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037), which anyone can verify."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.errors import InputError
from broker.evidence.heads import SignedStatement, Statement
from broker.model.chain import Head
from broker.model.finding import Finding
from broker.model.secret import Secret

__all__ = ["AnchorKey", "StoredStatement", "VerifyingKey", "opened"]

_ALGORITHM: Final = "EdDSA"
_TYPE: Final = "credential-broker-heads"  # so that no other text signed with this key passes for one
_PEM: Final = serialization.Encoding.PEM
_DER: Final = serialization.Encoding.DER
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """A statement as it is kept: the number of its place, and its signed text, or why that cannot be read."""

    number: int
    text: str
    fault: str = ""

    @property
    def hash(self) -> str:
        """What the next statement names this one by: SHA-256 of the text, lower-case hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class VerifyingKey:
    """The public half of the anchor's key."""

    def __init__(self, pem: str) -> None:
        """Raise `InputError` where `pem` is no Ed25519 public key."""
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
        """SHA-256 of the SPKI, lower-case hex. It is the `kid` of what the key signed."""
        return hashlib.sha256(self.key.public_bytes(_DER, _SPKI)).hexdigest()


class AnchorKey:
    """The key that signs statements: 32 octets, the seed of RFC 8032."""

    def __init__(self, seed: Secret[bytes]) -> None:
        """Raise `ValueError` where the seed is not 32 octets long."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed.reveal())

    @property
    def verifying(self) -> VerifyingKey:
        """The half that may be shown."""
        return VerifyingKey(self._key.public_key().public_bytes(_PEM, _SPKI).decode())

    def signed(self, statement: Statement) -> StoredStatement:
        """Return `statement` as signed text. The same statement gives the same text."""
        headers = {"kid": self.verifying.fingerprint, "typ": _TYPE}
        text = jwt.PyJWS().encode(statement.content, self._key, _ALGORITHM, headers)
        return StoredStatement(statement.number, text)


def opened(
    stored: Iterable[StoredStatement], key: VerifyingKey
) -> tuple[tuple[SignedStatement, ...], tuple[Finding, ...]]:
    """Return the statements whose signature is good, in the order given, and what is wrong with the others."""
    good: list[SignedStatement] = []
    faults: list[Finding] = []
    for one in stored:
        statement = _statement(one, key)
        if isinstance(statement, Finding):
            faults.append(statement)
        else:
            good.append(SignedStatement(statement, one.hash))
    return tuple(good), tuple(faults)


def _statement(stored: StoredStatement, key: VerifyingKey) -> Statement | Finding:
    where = f"statement {stored.number}"
    if stored.fault:
        return _fault("unreadable", stored.fault)
    try:
        header = jwt.get_unverified_header(stored.text)
        if header.get("kid") != key.fingerprint:
            return _fault("key", f"{where} is signed with another key than {key.fingerprint[:16]}…")
        verified = jwt.PyJWS().decode_complete(stored.text, key.key, [_ALGORITHM])
    except jwt.InvalidTokenError:
        return _fault("edited", f"{where} was edited: its signature does not fit")
    statement = _parsed(verified["payload"])
    if header.get("typ") != _TYPE or statement is None:
        return _fault("unreadable", f"{where} is not as this broker writes statements: upgrade it, or it was replaced")
    if statement.number != stored.number:
        return _fault("misplaced", f"{where} says that it is statement {statement.number}: it was moved or copied")
    return statement


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
    return Finding.error(f"anchor.{code}", message, "keep what you have and compare it with an older export")
