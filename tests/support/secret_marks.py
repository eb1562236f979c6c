"""Find a secret in the output and files of a program, in any encoding."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

__all__ = ["Marks"]

_SHORTEST = 8  # octets: what is shorter is found in anything
_BLANKS = re.compile(rb"(?:\s|\\n|\\r|\\t)+")
_SEPARATED_HEX = re.compile(rb"(?i)\b[0-9a-f]{2}(?:[: ][0-9a-f]{2}){7,}\b")


@dataclass(frozen=True)
class Marks:
    """One secret, and every way it could be written down in.

    Base64 is looked for at each of its three alignments, so also where the secret is the middle of something; line
    breaks, as PEM has them, and separators between hex octets do not hide it.
    """

    name: str
    secret: bytes
    forms: Mapping[str, frozenset[bytes]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        assert len(self.secret) >= _SHORTEST, f"{self.name} is too short to be looked for"
        object.__setattr__(self, "forms", dict(_forms(self.secret)))

    def found_in(self, data: bytes) -> list[str]:
        """Return the names of the encodings in which the secret is in `data`."""
        places = _places(data)
        return [
            name
            for name, forms in self.forms.items()
            if any(form in place for place in places.get(name, places[""]) for form in forms)
        ]


@functools.lru_cache(maxsize=4)
def _places(data: bytes) -> Mapping[str, tuple[bytes, ...]]:
    """Return `data` as each encoding is looked for in it; "" is for all that are not named."""
    plain_hex = b"\n".join(re.sub(rb"[: ]", b"", run) for run in _SEPARATED_HEX.findall(data))
    return {"raw": (data,), "hex": (data.lower(), plain_hex.lower()), "": (data, _BLANKS.sub(b"", data))}


def _forms(secret: bytes) -> Iterator[tuple[str, frozenset[bytes]]]:
    yield "raw", frozenset({secret, *_wide(secret)})
    yield "base64", frozenset(_base64(secret))
    yield "base64url", frozenset(form.translate(_URL) for form in _base64(secret))
    yield "hex", frozenset({binascii.hexlify(secret)})
    yield "url", frozenset(form for form in _url(secret) if form != secret)
    yield "escaped", frozenset(form for form in _escaped(secret) if form != secret)


def _base64(secret: bytes) -> Iterator[bytes]:
    """Yield the characters that the secret alone decides, for each of the three places it can begin at."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        first = (0, 2, 3)[shift]
        last = len(encoded) if (shift + len(secret)) % 3 == 0 else (shift + len(secret)) * 8 // 6
        yield encoded[first:last]


def _wide(secret: bytes) -> Iterator[bytes]:
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")


def _url(secret: bytes) -> Iterator[bytes]:
    every = "".join(f"%{octet:02X}" for octet in secret)
    for form in (quote(secret, safe=""), quote(secret), quote_plus(secret), every):
        yield form.encode()
        yield re.sub(r"%..", lambda match: match[0].lower(), form).encode()


def _escaped(secret: bytes) -> Iterator[bytes]:
    """Yield the secret as JSON and Python write it."""
    yield repr(secret)[2:-1].encode()
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    for form in (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), ascii(text)):
        yield form[1:-1].encode()
    yield json.dumps(text)[1:-1].replace("/", "\\/").encode()
    yield "".join(f"\\u{ord(c):04x}" for c in text).encode()


_URL = bytes.maketrans(b"+/", b"-_")
