"""Account documents in Vault."""

from __future__ import annotations

from broker.errors import UnknownNameError
from broker.model.account import Account
from broker.model.names import AccountName
from broker.rotation.ports import Version, Versioned
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DAMAGED_HINT, DamagedDocumentError, decoded, encoded
from broker.vault.errors import MissingError
from broker.vault.listing import ACCOUNTS, Documents, documents, listed


class VaultAccounts:
    """`rotation.ports.Accounts` on KV v2: the version of the document is its compare-and-set."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self, name: AccountName) -> Versioned:
        """Return the newest document; raise `UnknownNameError`, or what `documents.decoded` raises."""
        try:
            stored = self._vault.read(layout.account(name))
        except MissingError:
            raise UnknownNameError(
                f"there is no account {name}", hint="broker account list shows all accounts"
            ) from None
        account = decoded(stored.data, Account, f"account {name}")
        if account.name != name:
            raise DamagedDocumentError(
                f"account {name} is damaged: its document is of {account.name[:80]!r}", hint=DAMAGED_HINT
            )
        return Versioned(account, Version(stored.version))

    def write(self, account: Account, replacing: Version) -> None:
        """Store `account` as the version after `replacing`; raise `ConflictError`."""
        self._vault.write(layout.account(account.name), encoded(account), replacing=replacing)

    def landed(self, account: Account, replacing: Version) -> bool:
        """Return whether `account` is the version after `replacing`, as `Connection.landed` does."""
        return self._vault.landed(layout.account(account.name), encoded(account), replacing)

    def names(self) -> tuple[AccountName, ...]:
        """Return the names of all accounts, sorted."""
        return tuple(map(AccountName, listed(self._vault, ACCOUNTS)))

    def all(self) -> Documents[Account]:
        """Return every readable account by name, and findings about the others."""
        return documents(self._vault, ACCOUNTS, lambda name: self.read(AccountName(name)).account, "account.unreadable")
