"""The change document in Vault: written after each change that consumers must hear of, read for those who wait."""

from collections.abc import Callable

from broker.errors import BrokerError
from broker.model.chain import Entry
from broker.model.recent_changes import HEARD, RecentChanges
from broker.telemetry import log
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DamagedDocumentError, decoded, encoded
from broker.vault.errors import Document


def recent_changes(vault: Connection) -> RecentChanges:
    """Return the change document, an empty one if there is none; raise what `documents.decoded` raises."""
    stored = vault.read_or_none(layout.CHANGES)
    return _read(stored.data) if stored else RecentChanges()


def announce(vault: Connection, path: str) -> None:
    """Add the change of the document at `path`. It has happened: a failure is logged, and services notice later."""

    def added(document: Document | None) -> Document:
        try:
            before = _read(document) if document else RecentChanges()
        except DamagedDocumentError:  # a reader that sees another number than before looks at everything
            before = RecentChanges()
        return encoded(before.with_(path))

    try:
        vault.change(layout.CHANGES, added)
    except BrokerError as error:
        log.error("change not announced", path=path, reason=error.message)


def announcing(vault: Connection, store: Callable[[Entry], None]) -> Callable[[Entry], None]:
    """Return `store` for entries of accounts' evidence, which first announces those that consumers must hear of.

    An entry is due until it is stored, so what a killed process did not announce is announced by the next command.
    """

    def announced(entry: Entry) -> None:
        if entry.what in HEARD:
            announce(vault, entry.chain)  # the account's path
        store(entry)

    return announced


def _read(document: Document) -> RecentChanges:
    return decoded(document, RecentChanges, "the change document")
