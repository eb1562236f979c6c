"""Sign leases, and read them: any broker that has the keys reads the leases of another (JWT, RFC 7519; HS256)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import jwt
import msgspec

from broker.errors import DeniedError
from broker.model.lease import Lease
from broker.model.secret import Secret

ALGORITHM: Final = "HS256"  # only brokers read leases, so one shared key at a time; `kid` lets two overlap
AUDIENCE: Final = "credential-broker/lease"


@dataclass(frozen=True, slots=True)
class LeaseSigner:
    """The shared signing keys by `kid`, and the one that signs. Each has at least 32 octets (RFC 7518, 3.2)."""

    newest: str
    keys: Mapping[str, Secret[bytes]]

    def signed(self, lease: Lease) -> Secret[str]:
        """Return the lease as text. To renew it takes this text and the entity that it was granted to."""
        claims = {"aud": AUDIENCE, "exp": lease.expires, "lease": msgspec.to_builtins(lease)}
        key = self.keys[self.newest].reveal()
        return Secret(jwt.encode(claims, key, ALGORITHM, headers={"kid": self.newest}))

    def opened(self, text: Secret[str], *, now: datetime) -> Lease:
        """Return the lease; raise `DeniedError` with one text for every reason, so that a forger learns nothing."""
        lease = self._read(text.reveal())
        if lease is None or lease.expires <= now:
            raise DeniedError("the lease is not valid, or has ended", hint="get a new bundle")
        return lease

    def _read(self, text: str) -> Lease | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                self.keys[jwt.get_unverified_header(text)["kid"]].reveal(),
                [ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "aud"], "verify_exp": False},  # `opened` checks it by the broker's clock
            )
            return msgspec.convert(claims["lease"], Lease)
        except (jwt.InvalidTokenError, KeyError, TypeError, msgspec.ValidationError):
            return None
