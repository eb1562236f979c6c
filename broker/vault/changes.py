"""The change document in Vault: changes that services must hear of are announced before they are written."""

from collections.abc import Callable

from broker.errors import BrokerError
from broker.model.recent_changes import RecentChanges
from broker.telemetry import log
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DamagedDocumentError, decoded, encoded
from broker.vault.errors import Document


def recent_changes(vault: Connection) -> RecentChanges:
    """Return the change document, an empty one if there is none; raise what `documents.decoded` raises."""
    stored = vault.read_or_none(layout.CHANGES)
    return _read(stored.data) if stored else RecentChanges()


class Announcements:
    """Announce changes of documents that are written under compare-and-set.

    A change that could not be announced must not be written: services take what nobody announced to be unchanged.
    """

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def begin(self, path: str, version: int) -> None:
        """Announce that `version` of the document at `path` may be replaced; raise `BrokerError`."""
        self._change(lambda recent: recent.announced(path, version))

    def done(self, path: str, version: int) -> None:
        """Note that it was replaced, by this writer or another. A failure is logged, and services notice later."""
        try:
            self._change(lambda recent: recent.done(path, version))
        except BrokerError as error:
            log.error("change not noted", path=path, reason=error.message)

    def _change(self, change: Callable[[RecentChanges], RecentChanges]) -> None:
        def changed(document: Document | None) -> Document:
            try:
                before = _read(document) if document else RecentChanges()
            except DamagedDocumentError:  # a reader that sees a lower number than before looks at everything
                before = RecentChanges()
            return encoded(change(before))

        self._vault.change(layout.CHANGES, changed)


def _read(document: Document) -> RecentChanges:
    return decoded(document, RecentChanges, "the change document")
