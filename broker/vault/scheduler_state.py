"""What the scheduler keeps in Vault: a record for each account, the recipients of notices, how far mail was read.

Each is one value, in a document of its own, under compare-and-set.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from broker.model.names import AccountName
from broker.model.recipient import Recipients
from broker.model.rotation_record import RotationRecord
from broker.scheduling.replies import Mark
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document

T = TypeVar("T")


class StoredValue(Generic[T]):
    """The value at `path`, `empty` until one is written. `name` is for errors: those of `documents.decoded`."""

    def __init__(self, vault: Connection, path: str, name: str, empty: T) -> None:
        self._vault, self._path, self._name, self._empty = vault, path, name, empty

    def read(self) -> T:
        """Return the value."""
        stored = self._vault.read_or_none(self._path)
        return self._decoded(stored.data) if stored else self._empty

    def change(self, change: Callable[[T], T]) -> T:
        """Apply the pure `change` to the newest value, as `Connection.change` does; return the new one.

        Nothing is written if it returns its argument.
        """

        def changed(document: Document | None) -> Document | None:
            before = self._empty if document is None else self._decoded(document)
            after = change(before)
            return document if after == before else encoded(after)

        document = self._vault.change(self._path, changed)
        return self._decoded(document) if document else self._empty

    def _decoded(self, document: Document) -> T:
        return decoded(document, type(self._empty), self._name)


class VaultRotationRecords:
    """`scheduling.ports.Records` on KV v2. Raises what `documents.decoded` raises."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self, name: AccountName) -> RotationRecord:
        """Return the record of an account, an empty one if there is none."""
        return self._of(name).read()

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        """Apply the pure `change` to the newest record, as `StoredValue.change` does; return the new one."""
        return self._of(name).change(change)

    def _of(self, name: AccountName) -> StoredValue[RotationRecord]:
        return StoredValue(self._vault, layout.rotation(name), f"the rotation record of {name}", RotationRecord())


class VaultRecipients(StoredValue[Recipients]):
    """`scheduling.notices.RecipientStore` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        super().__init__(vault, layout.RECIPIENTS, "the document of recipients", Recipients())


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
