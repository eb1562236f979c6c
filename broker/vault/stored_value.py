"""One value in Vault, in a document of its own, under compare-and-set."""

from collections.abc import Callable
from typing import Generic, TypeVar

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
