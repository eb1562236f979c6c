"""Channels: how a signing request reaches the partner's people."""

from enum import Enum
from typing import Final


class Channel(Enum):
    """A channel. Values are written in profiles and in records of submissions."""

    MANUAL = "manual"  # a person sends it as they like
    EML = "eml"  # a draft of a mail, which a person sends
    SMTP = "smtp"  # the broker sends the mail
    PORTAL = "portal"  # a person uploads it
    VAULT_PKI = "vault-pki"  # a CA that answers a machine: for ourselves and tests


BY_MACHINE: Final = frozenset({Channel.SMTP, Channel.VAULT_PKI})
