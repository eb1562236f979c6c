"""Valid names of accounts, applications, profiles and environments, and valid mail addresses."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final, NewType

from broker.errors import InputError

AccountName = NewType("AccountName", str)
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)  # 63: a DNS label
_LONGEST_ADDRESS: Final = 254  # octets (RFC 3696, erratum 1690)
_OTHERS: Final = "\u00a1-\U0010ffff"  # letters and digits of all scripts, and more (RFC 6531, 3.3)
_ATOM: Final = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_OTHERS}-]+"  # RFC 5322, 3.2.3
_LABEL: Final = rf"[A-Za-z0-9{_OTHERS}](?:[A-Za-z0-9{_OTHERS}-]*[A-Za-z0-9{_OTHERS}])?"  # RFC 5321, 4.1.2
_ADDRESS: Final = rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*"  # compiled when needed: that takes 20 ms


def checked_name(text: str, kind: str) -> str:
    """Return `text` if it is a valid name, else raise `InputError` for a name of this `kind`."""
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
    """Return `text`, in normal form C, if it is one mail address without a display name; raise `InputError`.

    Letters, marks and digits may be of any script; `broker.addresses` says how such an address is written in a mail.
    """
    one = unicodedata.normalize("NFC", text) if len(text) <= _LONGEST_ADDRESS else ""
    plain = all(c.isascii() or unicodedata.category(c)[0] in "LMN" for c in one)
    if not plain or len(one.encode()) > _LONGEST_ADDRESS or not re.fullmatch(_ADDRESS, one):
        raise InputError(f"{text[:80]!r} is not one mail address", hint="write it as name@company.example")
    return one


def guess(word: str, words: Iterable[str]) -> str:
    """Return a question about the word that is meant, if one of `words` is near to `word`; else ""."""
    from difflib import get_close_matches  # only here: start-up counts

    near = get_close_matches(word, [other for other in words if other != word], n=1)
    return f"did you mean {near[0]}? " if near else ""
