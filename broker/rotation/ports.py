"""What rotation needs from the world, in rotation's words. Adapters import these; never the other way round.

A need with one method is a `Callable`, not a class. No port yields a private key or a password: rotation names
secrets and never holds one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NewType, Protocol

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.certificate import Spki
from broker.model.chain import Entry
from broker.model.generation import KeyRef, Parts, SecretRef
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.partners.profile import Profile
from broker.partners.verdict import Verdict

__all__ = [
    "Accounts",
    "Canary",
    "CanaryResult",
    "EvidenceLog",
    "ForkedEvidenceError",
    "Keys",
    "ReadProfile",
    "Secrets",
    "Settle",
    "Stragglers",
    "Version",
    "Versioned",
]


class ForkedEvidenceError(ConflictError):
    """Another entry stands where this one belongs: the chain and the account no longer tell one story."""

    retryable = False


Version = NewType("Version", int)  # 0: not there yet


@dataclass(frozen=True, slots=True)
class Versioned:
    """An account as read, and the version that a write must replace."""

    account: Account
    version: Version


class Accounts(Protocol):
    """The account documents."""

    def read(self, name: AccountName) -> Versioned:
        """Return the newest; raise `UnknownNameError`."""

    def write(self, account: Account, *, replacing: Version) -> None:
        """Store `account`; raise `ConflictError` unless `replacing` is still the newest version."""

    def landed(self, account: Account, *, replacing: Version) -> bool:
        """Return whether the version that followed `replacing` is `account`: then our write was the one that won."""


class Keys(Protocol):
    """Private keys in custody. They go in, sign, and are destroyed; they do not come out here."""

    def ensure(self, account: AccountName, slot: int, rules: KeyRules) -> tuple[KeyRef, Spki]:
        """Make the key of `slot`, or adopt the one that is there; return once it has been read back."""

    def sign_request(self, account: AccountName, key: KeyRef, subject: Subject, rules: KeyRules) -> str:
        """Return a PEM CSR for `subject`."""

    def destroy(self, account: AccountName, key: KeyRef) -> None:
        """Destroy every stored version. Destroying what is gone is no error."""


class Secrets(Protocol):
    """Named secrets in custody, the password among them: numbered, written once."""

    def store(self, account: AccountName, ref: SecretRef, secret: Secret[str]) -> None:
        """Store `secret`; raise `ConflictError` where its number is taken."""

    def destroy(self, account: AccountName, ref: SecretRef) -> None:
        """Destroy every stored version. Destroying what is gone is no error."""


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What the partner said to a canary."""

    verdict: Verdict
    detail: str = ""  # for people, nothing secret
    wait: timedelta | None = None  # the partner wants to be left alone for so long
    application: str = ""  # whose client_id it went out with


# Prepares a try and returns what sends it: whatever can fail on our side fails before the try is reserved
Canary = Callable[[Account, Parts], Callable[[], CanaryResult]]
# Writes the evidence that is due and destroys what is doomed; what Vault refuses now is left to the next change
Settle = Callable[[AccountName], None]  # raises ForkedEvidenceError
# Stores under its number; the same entry again is no error, another one is `ForkedEvidenceError`
EvidenceLog = Callable[[Entry], None]
ReadProfile = Callable[[Account], Profile]
Stragglers = Callable[[AccountName, int], frozenset[str]]  # names of consumers that hold the generation
