"""What accounts, applications, profiles and environments may be called, and where a mail may go."""

from __future__ import annotations

import re
from typing import Final, NewType

from broker.errors import InputError

__all__ = ["NAME", "AccountName", "account_name", "checked_name", "mail_address"]

AccountName = NewType("AccountName", str)
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)  # 63: a DNS label, so it fits wherever one does
_LONGEST_ADDRESS: Final = 254  # octets (RFC 3696, erratum 1690)
_NO_ATOM: Final = frozenset(' ,;:<>()[]"\\@')  # what a plain address has no place for (RFC 5322, 3.2.3)


def checked_name(text: str, kind: str) -> str:
    """Return `text`, or raise `InputError` that says what a name of this `kind` may look like."""
    if not NAME.fullmatch(text):
        raise InputError(
            f"{kind} {text[:80]!r} is not a name",
            hint="use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or a digit",
        )
    return text


def account_name(text: str) -> AccountName:
    """Return `text` as the name of an account; raise `InputError`."""
    return AccountName(checked_name(text, "account"))


def mail_address(text: str) -> str:
    """Return `text` if it is one plain ASCII mail address, without a display name; raise `InputError`."""
    local, _, domain = text.rpartition("@")
    plain = text.isascii() and text.isprintable() and not _NO_ATOM & set(local + domain)
    if not (local and domain and plain) or len(text) > _LONGEST_ADDRESS:
        raise InputError(f"{text[:80]!r} is not one mail address", hint="write it as name@company.example")
    return text
