"""Recipients of notices in Vault: one document."""

from broker.model.recipient import Recipients
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.stored_value import StoredValue


class VaultRecipients(StoredValue[Recipients]):
    """`scheduling.notices.RecipientStore` on KV v2."""

    def __init__(self, vault: Connection) -> None:
        super().__init__(vault, layout.RECIPIENTS, "the document of recipients", Recipients())
