"""What all use-cases on accounts share: a change under compare-and-set, stamped, and settled afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.names import AccountName
from broker.model.stamp import Stamp
from broker.rotation.amend import amend, amend_and_tell
from broker.rotation.ports import Accounts, ForkedEvidenceError, Settle

__all__ = ["Change", "UseCase"]

Change = Callable[[Account, Stamp], Account]


@dataclass(frozen=True, slots=True)
class UseCase:
    """The ports that `Registry` and `Rotation` have in common."""

    accounts: Accounts
    settle: Settle
    clock: Clock
    actor: str

    def stamp(self) -> Stamp:
        """Return the time now, and who acts."""
        return Stamp(self.clock(), self.actor)

    def amend(self, name: AccountName, change: Change) -> Account:
        """Apply `change` as `amend.amend` does."""
        return amend(self.accounts, name, lambda account: change(account, self.stamp()))

    def settled(self, name: AccountName, change: Change) -> Account:
        """Apply `change`, and settle."""
        after = self.amend(name, change)
        self.settle(name)
        return after

    def amend_and_tell(self, name: AccountName, change: Change) -> bool:
        """Apply `change`; return whether anything was left to do."""
        return amend_and_tell(self.accounts, name, lambda account: change(account, self.stamp()))

    @contextmanager
    def settling(self, name: AccountName) -> Iterator[None]:
        """Settle however the body ends; an error of the body wins over one of settling."""
        try:
            yield
        except BaseException:
            with suppress(ForkedEvidenceError):
                self.settle(name)
            raise
        self.settle(name)
