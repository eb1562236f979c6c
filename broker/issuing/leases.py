"""Leases as signed text: any broker that holds the keys can read what another wrote (JWT, RFC 7519; HS256)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import jwt
import msgspec

from broker.errors import DeniedError
from broker.model.lease import Lease
from broker.model.secret import Secret

__all__ = ["LeaseKeys", "LeaseSigner"]

ALGORITHM: Final = "HS256"  # only brokers read leases, so one shared key at a time; `kid` lets two overlap
AUDIENCE: Final = "credential-broker/lease"


@dataclass(frozen=True, slots=True)
class LeaseKeys:
    """The keys that brokers share, by `kid`, and which one signs. At least 32 octets each (RFC 7518, 3.2)."""

    newest: str
    keys: Mapping[str, Secret[bytes]]


class LeaseSigner:
    """Writes leases and reads them back."""

    def __init__(self, keys: LeaseKeys) -> None:
        self._keys = keys

    def signed(self, lease: Lease) -> Secret[str]:
        """Return the lease as text: who holds it may renew it, with the entity it was given to."""
        claims = {"aud": AUDIENCE, "exp": lease.expires, "lease": msgspec.to_builtins(lease)}
        key = self._keys.keys[self._keys.newest].reveal()
        return Secret(jwt.encode(claims, key, ALGORITHM, headers={"kid": self._keys.newest}))

    def opened(self, text: Secret[str], *, now: datetime) -> Lease:
        """Return the lease; raise `DeniedError`, in the same words for every reason: a forger learns nothing."""
        lease = self._read(text.reveal())
        if lease is None or lease.expires <= now:
            raise DeniedError("this lease is not valid, or no longer", hint="ask for a new bundle")
        return lease

    def _read(self, text: str) -> Lease | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                self._keys.keys[jwt.get_unverified_header(text)["kid"]].reveal(),
                [ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "aud"], "verify_exp": False},  # by our clock, above
            )
            return msgspec.convert(claims["lease"], Lease)
        except (jwt.InvalidTokenError, KeyError, TypeError, msgspec.ValidationError):
            return None
