"""The parts of an account: applications, signing requests, generations, tries and the breaker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import NewType

from msgspec import Struct, field

from broker.copies import replace
from broker.model.authentication import PASSWORD
from broker.model.certificate import CaSetRef, CertificateRef, Spki
from broker.model.stage import Stage

KeyRef = NewType("KeyRef", str)  # "kv:4": custody is part of the name, not of the model
SecretRef = NewType("SecretRef", str)  # "password:3": name and number of a secret


def secret_refs(secrets: Mapping[str, int]) -> frozenset[SecretRef]:
    """Name the `secrets`, given by name and number."""
    return frozenset(SecretRef(f"{name}:{number}") for name, number in secrets.items())


def key_ref(slot: int) -> KeyRef:
    """Name the key kept in Vault's KV under `slot`."""
    return KeyRef(f"kv:{slot}")


class Application(Struct, frozen=True):
    """An application registered at the partner. `client_id` is empty until the partner has sent it."""

    name: str
    client_id: str = ""
    rejected_at: datetime | None = None  # the partner refused this client_id; cleared when it is set again


def replaced_ids(now: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return those of the client_ids `now`, by application, that `new` replaces."""
    return {name: client_id for name, client_id in now.items() if new.get(name, client_id) != client_id}


class Closed(Enum):
    """Why a signing request was closed."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


class Submission(Struct, frozen=True):
    """A record that a CSR was sent. The lead time counts from the first."""

    at: datetime
    via: str  # a channel; "hand" in records of 0.1.0
    to: str = ""
    reference: str = ""
    message_id: str = ""


class SigningRequest(Struct, frozen=True):
    """A CSR. Its text is dropped when the request is closed; the SPKI stays, to name the request of a late reply."""

    number: int
    key: KeyRef
    spki: Spki
    csr: str
    drafted_at: datetime
    submissions: tuple[Submission, ...] = ()
    closed: Closed | None = None
    closed_at: datetime | None = None
    closed_because: str = ""  # the reason of the partner's people, if they refused it
    imported: bool = False  # its key was made outside, and is known there
    held_by: tuple[str, ...] = ()  # who has copies of the key outside, until a person says that they are gone
    compromised: Halt | None = None  # a person reported that others know its key
    revoked_at: datetime | None = None  # a person confirmed that the partner no longer takes a certificate of that key

    @property
    def state(self) -> str:
        """Whether it is open, or why it was closed, for people."""
        state = self.closed.value if self.closed else "open"
        return f"{state}, imported" if self.imported else state


class Parts(Struct, frozen=True):
    """References to the parts of a set; in a candidate to those that it changes, with the others empty.

    Key, certificate and issuing CA are one part, "certificate": they change together. So is each named secret, the
    client_id of each application, and the CAs we verify the partner's server by.

    A set that is or was current has the client_ids that a change replaced; all others are those of the applications.
    """

    key: KeyRef = KeyRef("")  # a str
    certificate: CertificateRef = CertificateRef("")  # a str
    issuing: CaSetRef = CaSetRef("")  # the CAs the certificate chains to
    secrets: Mapping[str, int] = field(default_factory=dict)  # the number of each, by name
    trust: CaSetRef = CaSetRef("")  # the CAs we verify the partner's server by
    client_ids: Mapping[str, str] = field(default_factory=dict)  # by application

    @property
    def names(self) -> frozenset[str]:
        """The names of the parts that are not empty."""
        found = {"certificate": self.certificate, "trust": self.trust}
        secrets, ids = (f"secret {name}" for name in self.secrets), (f"client_id {name}" for name in self.client_ids)
        return frozenset((*(name for name, ref in found.items() if ref), *secrets, *ids))

    @property
    def complete(self) -> bool:
        """True if no part is missing."""
        return bool(self.certificate and self.secrets and self.trust)

    @property
    def password(self) -> int:
        """The number of the password, 0 if there is none."""
        return self.secrets.get(PASSWORD, 0)

    @property
    def certified(self) -> Parts:
        """The certificate alone."""
        return Parts(self.key, self.certificate, self.issuing)

    def over(self, base: Parts) -> Parts:
        """Return `base` with these parts in place of its own."""
        certified = self if self.certificate else base
        secrets, ids = {**base.secrets, **self.secrets}, {**base.client_ids, **self.client_ids}
        return replace(certified.certified, secrets=secrets, trust=self.trust or base.trust, client_ids=ids)

    def beyond(self, base: Parts) -> Parts:
        """Return those of these parts that differ from `base`."""
        certified = self.certified if self.certificate != base.certificate else Parts()
        secrets = {name: number for name, number in self.secrets.items() if base.secrets.get(name) != number}
        ids = {name: client_id for name, client_id in self.client_ids.items() if base.client_ids.get(name) != client_id}
        trust = self.trust if self.trust != base.trust else CaSetRef("")
        return replace(certified, secrets=secrets, trust=trust, client_ids=ids)

    def without_client_id(self, application: str) -> Parts:
        """Return these parts without the client_id of `application`."""
        return replace(self, client_ids={n: i for n, i in self.client_ids.items() if n != application})


class Generation(Struct, frozen=True):
    """A set. A candidate has the parts that it changes, laid over the current set for its try; from the promotion on it
    is complete, and only its stage moves.
    """

    number: int
    parts: Parts
    stage: Stage
    since: datetime
    order: int  # of its last move, counted over all generations of the account


class Try(Struct, frozen=True):
    """A canary, stored before it is sent; `verdict` is empty until the answer is stored."""

    number: int
    generation: int
    at: datetime
    parts: Parts  # the whole set that was sent
    id: str  # random: identifies our reservation if the response to its write was lost
    verdict: str = ""


class Halt(Struct, frozen=True):
    """A person suspended or removed the account, and said why."""

    at: datetime
    reason: str


class RenewalMode(Enum):
    """Who starts the renewal of an account."""

    AUTO = "auto"  # the scheduler makes the request, and sends it if the channel can
    MANUAL = "manual"  # a person, whom notices remind
    DISABLED = "disabled"  # nobody


class PromotionMode(Enum):
    """Who promotes a candidate."""

    MANUAL = "manual"
    AUTO = "auto"  # the scheduler, once the partner accepts it


class Snooze(Struct, frozen=True):
    """A person put the renewal off until a time, at most the end of the certificate, and said why."""

    at: datetime
    until: datetime
    reason: str


class Breaker(Struct, frozen=True):
    """The partner rejected the login. No machine tries again, since partners lock accounts."""

    at: datetime
    password: int
    generation: int
