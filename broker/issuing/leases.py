"""Sign leases, and read them: any broker that has the keys reads the leases of another (JWT, RFC 7519; HS256)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from msgspec import Struct

from broker.errors import DeniedError
from broker.model.account import Account
from broker.model.lease import Lease
from broker.model.secret import Secret
from broker.model.waiting import Ended, Event
from broker.typed import from_json

ALGORITHM: Final = "HS256"  # only brokers read leases, so one shared key at a time; `kid` lets two overlap
AUDIENCE: Final = "credential-broker/lease"


class _Claims(msgspec.Struct, frozen=True):
    """The content of a lease's JWT. `opened` compares the end of the lease with the broker's clock."""

    aud: Literal["credential-broker/lease"]
    exp: int
    lease: Lease


class _Hs256(HMACAlgorithm):
    """HS256 that takes the key as it is: `LeaseSigner` has octets only, and trying PEM, DER and JSON takes longest."""

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return the key."""
        return key.encode() if isinstance(key, str) else key


_JWS: Final = jwt.PyJWS(algorithms=[])
_JWS.register_algorithm(ALGORITHM, _Hs256(_Hs256.SHA256))


def ended() -> DeniedError:
    """Return the one error for every lease that cannot be used."""
    return DeniedError("the lease is not valid, or has ended", hint="get a new bundle")


class LeaseSigner(Struct, frozen=True):
    """The shared signing keys by `kid`, and the one that signs. Each has at least 32 octets (RFC 7518, 3.2)."""

    newest: str
    keys: Mapping[str, Secret[bytes]]

    def signed(self, lease: Lease) -> Secret[str]:
        """Return the lease as text. To renew it takes this text and the entity that it was granted to."""
        claims = _Claims(AUDIENCE, int(lease.expires.timestamp()), lease)
        key = self.keys[self.newest].reveal()
        return Secret(_JWS.encode(msgspec.json.encode(claims), key, ALGORITHM, headers={"kid": self.newest}))

    def knows(self, text: Secret[str]) -> bool:
        """Return whether `text` names one of the keys. Nothing of it is verified."""
        try:
            return jwt.get_unverified_header(text.reveal()).get("kid") in self.keys
        except (jwt.InvalidTokenError, TypeError):  # no other key makes sense of it
            return True

    def opened(self, text: Secret[str], *, now: datetime) -> Lease:
        """Return the lease; raise `DeniedError` with one text for every reason, so that a forger learns nothing."""
        lease = self._read(text.reveal())
        if lease is None or lease.expires <= now:
            raise ended()
        return lease

    def _read(self, text: str) -> Lease | None:
        try:
            key = self.keys[jwt.get_unverified_header(text)["kid"]].reveal()
            return from_json(_JWS.decode(text, key, [ALGORITHM]), _Claims).lease
        except (jwt.InvalidTokenError, KeyError, TypeError, msgspec.DecodeError):
            return None


def ended_by(account: Account, application: str, generation: int) -> Ended | None:
    """Return the end of a wait for another generation than `generation`, None if it goes on."""
    if account.removed or application not in {a.name for a in account.applications}:
        return Ended(Event.REVOKED)
    if account.suspended:
        return Ended(Event.SUSPENDED)
    current = account.current
    if current and current.number != generation:
        return Ended(Event.GENERATION, current.number)
    return None
