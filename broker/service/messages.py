"""Requests and answers of the service. The OpenAPI description is generated from these types."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.model.lease import ID_LENGTH, OwnLease
from broker.model.names import NAME

Text = Annotated[str, Meta(max_length=256)]
Name = Annotated[Text, Meta(extra_json_schema={"pattern": f"^{NAME.pattern}$"})]  # said there, checked by the route
LONGEST_KEY: Final = 256  # characters of an Idempotency-Key
LeaseId = Annotated[str, Meta(pattern=f"^[0-9a-f]{{{ID_LENGTH}}}$", max_length=ID_LENGTH)]
LeaseText = Annotated[str, Meta(max_length=4096)]


class BundleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request for a bundle of the account's current generation."""

    account: Name
    application: Name
    kind: Literal["direct"] = "direct"
    ttl: Annotated[
        Text, Meta(description="Term such as 15m; one hour at most, and no longer than the certificate.")
    ] = ""


class LeaseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A lease to renew: the text that came with the bundle."""

    lease: LeaseText
    ttl: Text = ""


class RevokeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A lease to end: its text, or its id and the names of its application."""

    lease: LeaseText | UnsetType = UNSET
    lease_id: LeaseId | UnsetType = UNSET
    account: Text = ""
    application: Text = ""


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A renewed lease. If `newer` is set, the account has a newer generation: fetch a new bundle."""

    lease: str
    lease_id: str
    generation: int
    expires: datetime
    newer: int | None


class BundleTerm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a bundle that differ in each answer."""

    kind: str
    lease: str
    lease_id: str
    issued: datetime
    expires: datetime


class BundleAnswer(BundleTerm, frozen=True, kw_only=True):
    """A bundle: the account's credentials, and the lease that renews it."""

    version: Literal[1] = 1
    account: str
    application: str
    generation: int
    not_after: datetime
    base_url: str
    login: str
    client_id: str
    key: Annotated[str, Meta(description="Private key, PKCS#8 PEM.")]
    certificate: Annotated[str, Meta(description="Client certificate and its intermediates, PEM.")]
    trust: Annotated[str, Meta(description="CAs that verify the partner's server, PEM.")]
    secrets: Annotated[dict[str, str], Meta(description='Named secrets; "password" is the partner\'s password.')]
    authentication: Annotated[object, Meta(description="Parts of the partner's authentication, as in its profile.")]


class WaitRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A wait for another generation than `generation`; with `lease`, for the end of that lease too."""

    account: Text
    application: Text
    generation: Annotated[int, Meta(ge=0, le=999_999_999, description="The generation that the caller has; 0: none.")]
    lease: Annotated[LeaseText, Meta(description="The text of its lease.")] = ""


class WaitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a wait. Blanks come before it, so that proxies keep the connection.

    - `generation`: fetch a new bundle.
    - `revoked`: the lease, the right or the identity has ended. If the lease cannot be renewed, stop using the bundle.
    - `suspended`: nothing of the account is issued.
    - `drain`, `timeout`: wait again, after a random part of some seconds.
    """

    event: Literal["generation", "revoked", "suspended", "drain", "timeout"]
    generation: Annotated[int | None, Meta(description="The current generation, with that event.")] = None


class ApplicationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An application that the caller has a right to. `pending`: its account has no generation yet."""

    account: str
    application: str
    state: Literal["ready", "suspended", "expired", "pending"]
    generation: int | None
    not_after: datetime | None


class AccountsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The applications that the caller has a right to, as they were a minute ago at most."""

    applications: list[ApplicationAnswer]


class LeasesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The leases of the caller that have not ended, and nobody else's."""

    leases: list[OwnLease]


class MomentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A place on a timeline; `planned` if it did not happen yet."""

    at: datetime
    message: str
    planned: bool


class TimelineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Where an account stands, what happened, and what is planned, as it was some seconds ago at most.

    `phase` is from the table "Life cycle" of the documentation; `who` acts next, by itself if `automatic`.
    """

    account: str
    phase: str
    since: datetime | None
    who: Literal["nobody", "us", "partner"]
    automatic: bool
    due: Annotated[datetime | None, Meta(description="When renewal must start.")]
    not_after: datetime | None
    moments: list[MomentAnswer]
