"""What a consumer gets: a whole set, and the account of it that lies beside the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from broker.model.authentication import Authentication
from broker.model.certificate import CaSet, Certificate
from broker.model.names import AccountName
from broker.model.secret import Secret

__all__ = ["Bundle", "Manifest"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """One generation of one account, for one application, until a lease ends."""

    account: AccountName
    application: str
    generation: int
    base_url: str  # the only place that the secrets may travel to
    client_id: str
    login: str
    password: Secret[str]
    key: Secret[bytes]  # PKCS#8 DER, unencrypted
    certificate: Certificate
    trust: CaSet  # the CAs by which the partner's server is known
    lease_id: str  # names the lease; the lease itself is never written to a file
    expires: datetime
    authentication: Authentication = field(default_factory=Authentication)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is public of a published bundle. It is written last, so that where it is, all is.

    `files` maps each file to its SHA-256 in lower-case hex; or to "" where the file holds the password and nothing
    that is hard to guess, since whoever has the digest of a password can try passwords against it.
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
