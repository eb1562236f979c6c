"""The mark in Vault: the last mail of the watched mailbox that was read."""

from broker.scheduling.replies import Mark
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.stored_value import StoredValue


class VaultMailboxMarks(StoredValue[Mark]):
    """`scheduling.replies.Marks` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        super().__init__(vault, layout.MAILBOX, "the mark of the mailbox", Mark())

    def advance(self, mark: Mark) -> None:
        """Store the mark, unless a later one of the same mailbox is stored: another process read on meanwhile."""

        def advanced(before: Mark) -> Mark:
            same = (before.mailbox, before.validity) == (mark.mailbox, mark.validity)
            return before if same and before.uid >= mark.uid else mark

        self.change(advanced)
