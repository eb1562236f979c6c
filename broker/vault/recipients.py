"""Recipients of notices in Vault: one document, under compare-and-set."""

from collections.abc import Callable

from broker.model.recipient import Recipients
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, encoded
from broker.vault.errors import Document


class VaultRecipients:
    """`scheduling.notices.RecipientStore` on KV v2. Raises what `documents.decoded` raises."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def read(self) -> Recipients:
        """Return all recipients, none if there is no document."""
        stored = self._vault.read_or_none(layout.RECIPIENTS)
        return _recipients(stored.data if stored else None)

    def change(self, change: Callable[[Recipients], Recipients]) -> Recipients:
        """Apply the pure `change` to the newest document; return the new one."""

        def changed(document: Document | None) -> Document | None:
            before = _recipients(document)
            after = change(before)
            return document if after == before else encoded(after)

        return _recipients(self._vault.change(layout.RECIPIENTS, changed) or None)


def _recipients(document: Document | None) -> Recipients:
    return decoded(document, Recipients, "the document of recipients") if document is not None else Recipients()
