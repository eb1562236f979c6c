"""What accounts, applications, profiles and environments may be called."""

from __future__ import annotations

import re
from typing import Final, NewType

from broker.errors import InputError

__all__ = ["NAME", "AccountName", "account_name", "checked_name"]

AccountName = NewType("AccountName", str)
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)  # 63: a DNS label, so it fits wherever one does


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
