"""Mails that the broker sends."""

from datetime import datetime

from msgspec import Struct


class OutgoingMail(Struct, frozen=True):
    """A mail that is fixed before it is sent: sent again, it has the same bytes."""

    request: int  # number of the signing request in it
    message_id: str
    at: datetime
    to: tuple[str, ...]
    content: str  # RFC 5322, or 6532 if an address has letters that are not ASCII
