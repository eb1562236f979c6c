"""The set that a consumer gets, and the manifest published with its files."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct, field

from broker.model.authentication import Authentication, Values
from broker.model.lease import BundleKind, Consumer, Lease
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.waiting import Ended


class Bundle(Struct, frozen=True):
    """One generation of one account, for one application, until a lease ends."""

    account: AccountName
    application: str
    generation: int
    base_url: str  # the only place that the secrets are sent to
    client_id: str
    login: str
    secrets: Mapping[str, Secret[str]]  # by name; "password" is one
    key: Secret[bytes]  # PKCS#8 PEM, unencrypted
    certificate: str  # PEM: the client certificate, then its intermediates
    not_after: datetime  # of the certificate
    trust: str  # PEM: CAs that verify the partner's server
    lease_id: str  # names the lease; its text is in no file of the bundle
    expires: datetime
    authentication: Authentication = field(default_factory=Authentication)

    @property
    def values(self) -> Values:
        """The values that the authentication adds to a request."""
        return Values(self.login, self.client_id, self.secrets)


class Wanted(Struct, frozen=True):
    """A consumer's request for a bundle."""

    account: AccountName
    application: str
    ttl: timedelta
    kind: BundleKind = BundleKind.DIRECT
    allow_expired: bool = False
    idempotency_key: str = ""  # requests of one consumer with the same key share a lease


class Granted(Struct, frozen=True):
    """A bundle, and the lease that renews it."""

    bundle: Bundle
    consumer: Consumer
    lease: Lease
    lease_text: Secret[str]


class Source(Protocol):
    """Where bundles come from: the use-case, or a service that offers it. Raise `BrokerError`."""

    @property
    def renews(self) -> bool:
        """Whether leases can be renewed, so that a bundle is held beyond its first term."""

    def grant(self, wanted: Wanted) -> Granted:
        """Return a bundle of the current generation."""

    def give_back(self, granted: Granted) -> None:
        """Record that the bundle is no longer held."""

    def renew(self, wanted: Wanted, granted: Granted) -> Granted:
        """Return the bundle with a later end, or a new one if there is a newer; itself if neither is possible.

        Raise `DeniedError` if the lease or the right has ended, `RefusedError` if nothing is issued any more.
        """

    def wait(self, granted: Granted) -> Ended:
        """Return when something happens to what was granted, or now and then."""


class Manifest(Struct, frozen=True):
    """The public part of a published bundle. It is written last: if it is there, all files are.

    `files` maps each file to its SHA-256 in lower-case hex; or to "" if the file holds a password and nothing that is
    hard to guess, since the digest of a password lets anybody try passwords against it.
    """

    account: AccountName
    application: str
    generation: int
    base_url: str
    authentication: Authentication
    not_after: datetime
    lease_id: str
    expires: datetime
    files: Mapping[str, str]
