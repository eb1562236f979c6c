"""The broker's signing keys in Vault, shared by every broker."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.errors import RefusedError
from broker.issuing.leases import LeaseKeys
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection, Document
from broker.vault.documents import decoded, enveloped

__all__ = ["lease_keys"]

LEASES: Final = "lease"
OCTETS: Final = 32  # HS256 wants as many as its hash has (RFC 7518, 3.2)


def lease_keys(vault: Connection) -> LeaseKeys:
    """Return the keys that sign leases, making the first. Two brokers that start together use the same."""
    return _keys(vault.adopt(layout.signer(LEASES), _first))


def _first() -> Document:
    key = Secret(base64.b64encode(secrets.token_bytes(OCTETS)).decode())
    return enveloped({"newest": "1", "keys": {"1": key}})


@dataclass(frozen=True, slots=True)
class _StoredKeys:
    newest: str
    keys: Mapping[str, str] = field(repr=False)  # by `kid`, in base64


def _keys(document: Document) -> LeaseKeys:
    found = decoded(document, _StoredKeys, "the document of the keys that sign leases")
    try:
        keys = {kid: Secret(base64.b64decode(text, validate=True)) for kid, text in found.keys.items()}
    except ValueError:
        raise RefusedError("the keys that sign leases are not as the broker wrote them") from None
    if found.newest not in keys or any(len(key.reveal()) < OCTETS for key in keys.values()):
        raise RefusedError("the keys that sign leases are incomplete, or too short")
    return LeaseKeys(found.newest, keys)
