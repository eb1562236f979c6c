"""Signed statements of where the chains stood, and the key that signs them. All are written once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from broker.errors import RefusedError
from broker.evidence.statements import AnchorKey, StoredStatement, VerifyingKey
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded, enveloped, in_base64
from broker.vault.errors import MissingError
from broker.vault.listing import STATEMENTS, listed

_SIGNER: Final = "anchor"
_OCTETS: Final = 32


@dataclass(frozen=True, slots=True)
class _StoredSeed:
    seed: Annotated[bytes, msgspec.Meta(min_length=_OCTETS, max_length=_OCTETS)] = field(repr=False)  # of Ed25519


class VaultStatements:
    """`evidence.statements.Statements` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def key(self) -> AnchorKey:
        """Return the key that signs, making it at the first call; its public half is stored beside the statements.

        Concurrent calls get the same key. Raise `RefusedError` if one of the halves is not as the broker wrote it.
        """
        document = self._vault.adopt(
            layout.signer(_SIGNER), lambda: enveloped({"seed": in_base64(secrets.token_bytes(_OCTETS))})
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
