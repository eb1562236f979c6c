"""Leases, the terms of bundles, and who holds them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from msgspec import Struct

from broker.errors import RefusedError
from broker.model.names import AccountName
from broker.model.secret import Secret

LONGEST: Final = timedelta(hours=1)
ID_LENGTH: Final = 32  # of a lease
RENEWABLE: Final = timedelta(hours=24)  # since a lease was first issued; then its holder fetches a new bundle
SKEW: Final = timedelta(minutes=10)  # between two brokers, since each refuses to work five minutes from Vault's clock


class BundleKind(Enum):
    """The kinds of bundles: the set itself, or a certificate for the gateway that lasts minutes."""

    DIRECT = "direct"
    GATEWAY = "gateway"


class Lease(Struct, frozen=True):
    """The term for which a consumer holds a generation. `issuing.leases` makes signed text of it."""

    id: str
    consumer: str  # Vault entity id
    account: AccountName
    application: str
    kind: BundleKind
    generation: int
    first_issued: datetime
    expires: datetime
    epoch: int = 0  # of its consumer's record at the grant: a later revocation may end it

    @property
    def renewable_until(self) -> datetime:
        """Return the latest end that renewals can give it."""
        return self.first_issued + RENEWABLE


class OwnLease(Struct, frozen=True, kw_only=True):
    """A generation of an application that the caller holds until `expires`, when the last of its leases ends.

    If `shared`, processes with the same identity hold further leases of it: `lease_id` is the newest.
    """

    lease_id: str
    account: str
    application: str
    kind: str
    generation: int
    since: datetime
    expires: datetime
    shared: bool


def expiry(asked: timedelta, *, now: datetime, not_after: datetime) -> datetime:
    """Return the earliest of the end asked for, an hour from `now`, and the certificate's end.

    Raise `RefusedError` if that is not in the future.
    """
    if not_after <= now:
        raise RefusedError(f"the certificate expired on {not_after:%F %TZ}", hint="broker status")
    if asked <= timedelta(0):
        raise RefusedError("the term of a bundle must be longer than zero", hint="ask for a term such as --ttl 1h")
    return min(now + min(asked, LONGEST), not_after)


class Caller(Struct, frozen=True):
    """The identity that a request shows, and where it comes from (None: a unix socket)."""

    credential: Secret[str]
    peer: IPv4Address | IPv6Address | None = None
    is_jwt: bool = False  # else a token of Vault

    @property
    def digest(self) -> bytes:
        """A digest of all of it, for caches."""
        peer = self.peer and (self.peer.version, int(self.peer))  # as text it takes longer than all else
        return Secret(f"{self.is_jwt}|{peer}|{self.credential.reveal()}").digest()


class Consumer(Struct, frozen=True):
    """The consumer that asks: an entity that Vault has authenticated."""

    entity: str
    name: str

    @property
    def fields(self) -> dict[str, str]:
        """Fields for the log."""
        return {"consumer": self.name, "entity": self.entity}
