"""Documents that change, under compare-and-set: accounts, consumers' records, custom profiles."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime

from broker.errors import BrokerError, ConflictError, UnknownNameError
from broker.model.account import Account
from broker.model.lease import ConsumerRecord, Held, held
from broker.model.names import NAME, AccountName, guess
from broker.partners.document import to_document
from broker.partners.profile import Profile
from broker.rotation.ports import Version, Versioned
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DAMAGED_HINT, DamagedDocumentError, decoded, encoded
from broker.vault.errors import Document, MissingError
from broker.vault.listing import ACCOUNTS, CONSUMERS, PROFILES, Documents, documents, listed


class VaultAccounts:
    """`rotation.ports.Accounts` on KV v2: the version of the document is its compare-and-set."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

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

    def _names_if_allowed(self) -> tuple[AccountName, ...]:
        with suppress(BrokerError):  # not every role may list them
            return self.names()
        return ()

    def all(self) -> Documents[Account]:
        """Return every readable account by name, and findings about the others."""
        return documents(self._vault, ACCOUNTS, lambda name: self.read(AccountName(name)).account, "account.unreadable")


class VaultConsumers:
    """`issuing.grant.Consumers` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def all(self) -> Documents[ConsumerRecord]:
        """Return every readable record by entity, and findings about the others."""
        return documents(self._vault, CONSUMERS, self._read, "consumer.unreadable")

    def held(self, account: AccountName, now: datetime) -> tuple[Held, ...]:
        """Return the holdings of `account` that no end has passed, each with its consumer."""
        return held(self.all().found.values(), account, now)

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        """Apply the pure `change` to the record of `entity`, a new one at first, as `Connection.change` does."""

        def changed(document: Document | None) -> Document:
            return encoded(change(_record(entity, document) if document else ConsumerRecord(entity, name)))

        return _record(entity, self._vault.change(layout.consumer(entity), changed))

    def _read(self, entity: str) -> ConsumerRecord:
        return _record(entity, self._vault.read(layout.consumer(entity)).data)


def _record(entity: str, document: Document) -> ConsumerRecord:
    return decoded(document, ConsumerRecord, f"consumer {entity}")


def own_profiles(vault: Connection) -> Documents[Mapping[str, object]]:
    """Return all stored documents by name, and a finding for each that cannot be read."""
    return documents(vault, PROFILES, lambda name: vault.read(layout.profile(name)).data, "profile.unreadable")


class StoredProfiles(Mapping[str, Mapping[str, object]]):
    """The stored documents by name; `partners.catalogue.load` reads them. Each is read when it is asked for."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def __getitem__(self, name: str) -> Mapping[str, object]:
        stored = self._vault.read_or_none(layout.profile(name)) if NAME.fullmatch(name) else None
        if stored is None:
            raise KeyError(name)
        return stored.data

    def __iter__(self) -> Iterator[str]:
        return iter(listed(self._vault, PROFILES))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def store_profile(vault: Connection, profile: Profile) -> None:
    """Store `profile`, replacing an older one of its name; raise `ConflictError` if another was stored meanwhile."""
    path, wanted = layout.profile(profile.name), to_document(profile)
    stored = vault.read_or_none(path)
    older = stored.data if stored else None

    def replaced(newest: Document | None) -> Document:
        if newest not in (older, wanted):
            hint = f"look at it, and add yours again: broker partner show {profile.name}"
            raise ConflictError(f"another profile {profile.name} was stored meanwhile", hint=hint)
        return wanted

    vault.change(path, replaced)
