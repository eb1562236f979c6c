"""Accounts in Vault, written under compare-and-set. What services must hear of is announced first (ADR 29)."""

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from broker.errors import BrokerError, UnknownNameError
from broker.model.account import Account
from broker.model.names import AccountName, guess
from broker.model.recent_changes import concerns_consumers
from broker.rotation.ports import Version, Versioned
from broker.vault import layout
from broker.vault.changes import Announcements
from broker.vault.connection import Connection
from broker.vault.documents import DAMAGED_HINT, DamagedDocumentError, decoded, encoded
from broker.vault.errors import MissingError
from broker.vault.listing import ACCOUNTS, Documents, documents, listed, versions


class VaultAccounts:
    """`rotation.ports.Accounts` on KV v2: the version of the document is its compare-and-set."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault
        self._announcements = Announcements(vault)
        self._seen: Versioned | None = None  # as last read: a writer reads first

    def read(self, name: AccountName) -> Versioned:
        """Return the newest document; raise `UnknownNameError`, or what `documents.decoded` raises."""
        try:
            stored = self._vault.read(layout.account(name))
        except MissingError:
            hint = f"{guess(name, self._names_if_allowed())}broker account list shows all accounts"
            raise UnknownNameError(f"there is no account {name}", hint=hint) from None
        account = decoded(stored.data, Account, f"account {name}")
        if account.name != name:
            message = f"account {name} is damaged: its document is of {account.name[:80]!r}"
            raise DamagedDocumentError(message, hint=DAMAGED_HINT)
        self._seen = seen = Versioned(account, Version(stored.version))
        return seen

    def write(self, account: Account, replacing: Version) -> None:
        """Store `account` as the version after `replacing`; raise `ConflictError`."""
        path, document = layout.account(account.name), encoded(account)
        if not self._is_announced(account, replacing):
            self._vault.write(path, document, replacing=replacing)
            return
        self._announcements.begin(path, replacing)
        self._vault.write(path, document, replacing=replacing)
        self._announcements.done(path, replacing)

    def landed(self, account: Account, replacing: Version) -> bool:
        """Return whether `account` is the version after `replacing`, as `Connection.landed` does."""
        path = layout.account(account.name)
        if self._is_announced(account, replacing):
            self._announcements.done(path, replacing)
        return self._vault.landed(path, encoded(account), replacing)

    def _is_announced(self, account: Account, replacing: Version) -> bool:
        """Return whether the change is announced. No service knows a new account."""
        seen = self._seen
        if seen and (seen.account.name, seen.version) == (account.name, replacing):
            return concerns_consumers(seen.account, account)
        return replacing > 0

    def names(self) -> tuple[AccountName, ...]:
        """Return the names of all accounts, sorted."""
        return tuple(map(AccountName, listed(self._vault, ACCOUNTS)))

    def versions(self) -> Mapping[AccountName, Version]:
        """Return the version of each account's document; 0 for all if Vault does not say, as HashiCorp's does not."""
        found = versions(self._vault, ACCOUNTS)
        if found is None:
            return dict.fromkeys(self.names(), Version(0))
        return {AccountName(name): Version(version) for name, version in found.items()}

    def _names_if_allowed(self) -> tuple[AccountName, ...]:
        with suppress(BrokerError):  # not every role may list them
            return self.names()
        return ()

    def all(self, seen: Mapping[AccountName, Versioned] = MappingProxyType({})) -> Documents[Account]:
        """Return every readable account by name, and findings about the others.

        An account that was `seen` at its newest version is not read again, if Vault lists versions.
        """
        newest = self.versions() if seen else {}

        def account(name: str) -> Account:
            known = seen.get(AccountName(name))
            same = known and known.version == newest.get(AccountName(name))
            return known.account if known and same else self.read(AccountName(name)).account

        return documents(self._vault, ACCOUNTS, account, "account.unreadable")
