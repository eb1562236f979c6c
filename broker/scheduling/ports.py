"""The ports of the scheduler. Mail, notices and hooks are plain callables: the sweep puts the fence before each.

LockTakenError    another scheduler leads
LostLockError     another scheduler became the leader while this one did something else
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from typing import Protocol

from msgspec import Struct

from broker.errors import BrokerError, ConflictError, WaitingError
from broker.model.account import Account
from broker.model.generation import SigningRequest, Submission
from broker.model.names import AccountName
from broker.model.plan import AccountPlan
from broker.model.rotation_record import RotationRecord
from broker.rotation.ports import Version


class LockTakenError(WaitingError):
    """Another scheduler leads. This one does nothing."""


class LostLockError(ConflictError):
    """Another scheduler took the lock, since this one had not renewed it in time."""


class Leader(Struct, frozen=True):
    """The document of the lock: who sweeps, since when, and when the last sweep ended.

    `id` is random for each sweep: a write whose answer was lost is recognised by it.
    """

    holder: str
    id: str
    since: datetime
    ended: bool = False
    last_end: datetime | None = None  # of the last sweep that came to its end


Fence = Callable[[], None]  # raises LostLockError; called before each mail, hook and canary


class Leadership(Struct, frozen=True):
    """The lock while this process has it."""

    fence: Fence  # always asks Vault
    keep: Fence  # asks only if the lock was not renewed for a while: for what changes nothing outside
    last_end: datetime | None  # of the last sweep, of any process


class Lock(Protocol):
    """The lock of the sweep."""

    def held(self) -> AbstractContextManager[Leadership]:
        """Take the lock for the body, and give it back; raise `LockTakenError`."""


class Records(Protocol):
    """The rotation records, one for each account."""

    def read(self, name: AccountName) -> RotationRecord:
        """Return the record, an empty one if there is none."""

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        """Apply the pure `change` under compare-and-set; return the new record."""


class Listing(Protocol):
    """The accounts, with the versions of their documents; 0 if Vault does not say."""

    def versions(self) -> Mapping[AccountName, Version]:
        """Return the version of each account by name."""


class Idle(Protocol):
    """The accounts to which nothing happens by itself before a day is over, at the versions that were looked at."""

    def read(self, day: date) -> Mapping[AccountName, Version]:
        """Return those of `day`; none if none was stored, or it is of another day."""

    def write(self, day: date, versions: Mapping[AccountName, Version]) -> None:
        """Store those of `day`."""


# Sends the CSR by the way of the account's partner; None if only a person can
Submit = Callable[[Account, SigningRequest], Submission | None]
PollReplies = Callable[[], None]  # reads what arrived, and notes proposals in the records
Notify = Callable[[Sequence[AccountPlan], Fence], None]  # the plans of the accounts that were looked at
RunHooks = Callable[  # the account, its record and what the sweep did for it; yields the hooks that failed, by step
    [Account, RotationRecord, Collection[str], Fence], Iterator[tuple[str, BrokerError]]
]
