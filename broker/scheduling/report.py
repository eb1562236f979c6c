"""Results of a sweep."""

from datetime import datetime
from enum import Enum

from msgspec import Struct

from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.plan import AccountPlan
from broker.model.rotation_record import RotationRecord
from broker.rotation.ports import Version


class Result(Enum):
    """The result of an action."""

    DONE = "done"
    WOULD = "would be done"  # by a dry run
    WAITING = "waiting"  # for a consumer, or a person
    OVERTAKEN = "overtaken"  # a person or another scheduler was faster
    FAILED = "failed"


class Deed(Struct, frozen=True):
    """An action, and its result. `account` is empty for mail and notices, which are for all."""

    account: str
    do: str
    result: Result
    number: int = 0
    message: str = ""
    hint: str = ""
    until: datetime | None = None  # it is tried again then


class SweepReport(Struct, frozen=True):
    """A sweep: how many accounts there are, how many were read, and what was done."""

    at: datetime
    accounts: int
    read: int
    missed: int
    deeds: tuple[Deed, ...]

    @property
    def failures(self) -> tuple[Deed, ...]:
        """What failed."""
        return tuple(deed for deed in self.deeds if deed.result is Result.FAILED)


class Standing(Struct, frozen=True):
    """An account as the last sweep left it."""

    version: Version
    account: Account
    plan: AccountPlan
    record: RotationRecord

    @property
    def name(self) -> AccountName:
        """The name of the account."""
        return self.account.name
