"""The parts of an account: applications, signing requests, generations, and what the partner said of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType

from broker.model.certificate import CaSetRef, CertificateRef, Spki
from broker.model.stage import Stage

__all__ = [
    "Application",
    "Breaker",
    "Closed",
    "Generation",
    "KeyRef",
    "Parts",
    "PasswordRef",
    "SigningRequest",
    "Submission",
    "Try",
    "key_ref",
]

KeyRef = NewType("KeyRef", str)  # "kv:4": custody is part of the name, not of the model
PasswordRef = NewType("PasswordRef", int)


def key_ref(slot: int) -> KeyRef:
    """Name the key kept in Vault's KV under `slot`."""
    return KeyRef(f"kv:{slot}")


@dataclass(frozen=True, slots=True)
class Application:
    """A program's registration at the partner. `client_id` is empty until the partner has sent it."""

    name: str
    client_id: str = ""
    rejected_at: datetime | None = None  # the partner refused this client_id; cleared when it is set anew


class Closed(Enum):
    """Why a signing request no longer waits."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Submission:
    """Evidence that a CSR was sent. The lead time counts from the first."""

    at: datetime
    via: str  # "eml", "hand", later "smtp"
    to: str = ""
    reference: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A CSR on its way through people. `csr` is empty once closed; the SPKI stays, to name a late reply."""

    number: int
    key: KeyRef
    spki: Spki
    csr: str
    drafted_at: datetime
    submissions: tuple[Submission, ...] = ()
    closed: Closed | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a complete set is made of: references all, so that two generations share what did not change."""

    key: KeyRef
    certificate: CertificateRef
    password: PasswordRef
    trust: CaSetRef  # the CAs we know the partner's server by
    issuing: CaSetRef  # the CAs the certificate chains to


@dataclass(frozen=True, slots=True)
class Generation:
    """A complete set. It is born with every part and never changes; only its stage moves."""

    number: int
    parts: Parts
    stage: Stage
    since: datetime
    base: int = 0  # the generation that was current at its birth; 0: none was
    restores: int = 0  # the generation whose certificate it brings back, where a roll-back made it
    replaces: int = 0  # the candidate it took the place of, joined to what changed meanwhile
    held: bool = False  # displaced by a roll-back: only a person, naming it, promotes it again


@dataclass(frozen=True, slots=True)
class Try:
    """One canary. Stored before it is sent; `verdict` is empty until the answer is stored, or for ever."""

    number: int
    generation: int
    at: datetime
    id: str  # random: tells our own reservation from another's when the answer to the write was lost
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The partner rejected the login: nothing tries again by itself, since partners lock accounts."""

    at: datetime
    password: PasswordRef
    generation: int
