"""The broker's signing keys in Vault, shared by every broker."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from broker.errors import RefusedError
from broker.issuing.leases import LeaseSigner
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DAMAGED_HINT, decoded, enveloped, in_base64

LEASES: Final = "lease"
OCTETS: Final = 32  # HS256 wants as many as its hash has (RFC 7518, 3.2)


@dataclass(frozen=True, slots=True)
class _StoredKeys:
    newest: str
    keys: Mapping[str, Annotated[bytes, msgspec.Meta(min_length=OCTETS)]] = field(repr=False)  # by `kid`


def lease_signer(vault: Connection) -> LeaseSigner:
    """Return the keys that sign leases, making the first. Two brokers that start together use the same."""
    document = vault.adopt(
        layout.signer(LEASES),
        lambda: enveloped({"newest": "1", "keys": {"1": in_base64(secrets.token_bytes(OCTETS))}}),
    )
    found = decoded(document, _StoredKeys, "the document of the keys that sign leases")
    if found.newest not in found.keys:
        raise RefusedError("the newest of the keys that sign leases is missing", hint=DAMAGED_HINT)
    return LeaseSigner(found.newest, {kid: Secret(key) for kid, key in found.keys.items()})
