"""Ports of rotation, which adapters implement. A port with one method is a `Callable`, not a class.

No port returns a private key or a secret: rotation refers to them and never has one in memory, except to store it.
"""

from collections.abc import Callable, Iterable
from typing import NewType, Protocol

from msgspec import Struct

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.certificate import Spki
from broker.model.chain import Entry
from broker.model.generation import KeyRef, Parts, SecretRef
from broker.model.holdings import ConsumerRecord
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.model.verdict import CanaryResult
from broker.partners.profile import Profile


class ForkedEvidenceError(ConflictError):
    """Another entry has this entry's place in the chain, so chain and account disagree."""

    retryable = False


class SlotTakenError(ConflictError):
    """The slot has a key that a killed or concurrent command stored: one made here where one from outside should be,
    or the other way round.
    """

    def __init__(self, account: AccountName, slot: int) -> None:
        super().__init__(f"another command stored a key in slot {slot} of {account}", hint="run this command again")


Version = NewType("Version", int)  # 0: not stored yet


class Consumers(Protocol):
    """The records of what each consumer holds."""

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to a consumer's record."""


class Versioned(Struct, frozen=True):
    """An account, and the version that a write must replace."""

    account: Account
    version: Version


class Accounts(Protocol):
    """The account documents."""

    def read(self, name: AccountName) -> Versioned:
        """Return the newest version; raise `UnknownNameError`."""

    def write(self, account: Account, replacing: Version) -> None:
        """Store `account`; raise `ConflictError` unless `replacing` is still the newest version."""

    def landed(self, account: Account, replacing: Version) -> bool:
        """Return whether the version after `replacing` is `account`: then our write succeeded."""


class Keys(Protocol):
    """Private keys: made or stored, used to sign, and destroyed, but never returned."""

    def ensure(self, account: AccountName, slot: int, rules: KeyRules) -> tuple[KeyRef, Spki]:
        """Make the key of `slot`, or adopt the one made there; return after reading it back. Raise `SlotTakenError`."""

    def keep(self, account: AccountName, slot: int, key: Secret[bytes]) -> tuple[KeyRef, Spki]:
        """Store `key`, which was made outside; return after reading it back. Raise `SlotTakenError`."""

    def sign_request(self, account: AccountName, key: KeyRef, subject: Subject, rules: KeyRules) -> str:
        """Return a PEM CSR for `subject`."""

    def destroy(self, account: AccountName, key: KeyRef) -> None:
        """Destroy every stored version. It is no error if there is none."""


class Secrets(Protocol):
    """Named secrets, the password among them: numbered, written once."""

    def store(self, account: AccountName, ref: SecretRef, secret: Secret[str]) -> None:
        """Store `secret`; raise `ConflictError` if its number is taken."""

    def destroy(self, account: AccountName, ref: SecretRef) -> None:
        """Destroy every stored version. It is no error if there is none."""


# Prepares a try and returns a function that sends it, so that our own failures come before the try is reserved
Canary = Callable[[Account, Parts], Callable[[], CanaryResult]]
# Stores evidence and destroys doomed secrets; what Vault refuses now is left to the next change
Settle = Callable[[AccountName], None]  # raises ForkedEvidenceError
# Stores an entry under its number; repeating it is no error, another entry there is `ForkedEvidenceError`
EvidenceLog = Callable[[Entry], None]
Others = Callable[[], Iterable[Account]]  # all accounts, to find whose reply this is; none if they cannot be listed
ReadProfile = Callable[[Account], Profile]
Stragglers = Callable[[AccountName, int], frozenset[str]]  # names of consumers that hold the generation
