"""The mark in Vault: the last mail of the watched mailbox that was read, under compare-and-set."""

from broker.scheduling.replies import Mark
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document


class VaultMailboxMarks:
    """`scheduling.replies.Marks` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self) -> Mark:
        """Return the mark, an empty one if there is none."""
        stored = self._vault.read_or_none(layout.MAILBOX)
        return _mark(stored.data if stored else None)

    def advance(self, mark: Mark) -> None:
        """Store the mark, unless a later one of the same mailbox is stored: another process read on meanwhile."""

        def changed(document: Document | None) -> Document | None:
            before = _mark(document)
            same = (before.mailbox, before.validity) == (mark.mailbox, mark.validity)
            return document if same and before.uid >= mark.uid else encoded(mark)

        self._vault.change(layout.MAILBOX, changed)


def _mark(document: Document | None) -> Mark:
    return decoded(document, Mark, "the mark of the mailbox") if document is not None else Mark()
