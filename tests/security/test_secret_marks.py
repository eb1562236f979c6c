"""The searcher finds what it is to find: a search that finds nothing proves nothing otherwise."""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.secret_marks import Marks

TEXT = "pl4nted:Pa§s/word+1"
SECRET = TEXT.encode()
MARKS = Marks("password", SECRET)

WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "as it is": ("raw", lambda s: b"x" + s + b"y"),
    "UTF-16": ("raw", lambda s: s.decode().encode("utf-16")),
    "basic": ("base64", lambda s: base64.b64encode(b"MZP0000001:" + s)),
    "base64, one before": ("base64", lambda s: base64.b64encode(b"1" + s + b"after")),
    "base64, two before": ("base64", lambda s: base64.b64encode(b"12" + s + b"a")),
    "base64 in lines": ("base64", lambda s: base64.encodebytes(b"x" * 50 + s + b"y" * 80)),
    "base64 in lines in JSON": (
        "base64", lambda s: json.dumps("\n".join(textwrap.wrap(base64.b64encode(s).decode(), 7))).encode(),
    ),
    "base64url": ("base64url", lambda s: base64.urlsafe_b64encode(b"\xff\xfe" + s + b"\xff")),
    "hex": ("hex", lambda s: s.hex().encode()),
    "HEX": ("hex", lambda s: s.hex().upper().encode()),
    "he:xx": ("hex", lambda s: s.hex(":").encode()),
    "form": ("url", lambda s: urlencode({"p": s.decode()}).encode()),
    "query": ("url", lambda s: quote(s.decode(), safe="").encode()),
    "path": ("url", lambda s: quote(s.decode()).encode()),
    "plus": ("url", lambda s: quote_plus(s.decode()).encode()),
    "every octet": ("url", lambda s: "".join(f"%{c:02x}" for c in s).encode()),
    "JSON": ("escaped", lambda s: json.dumps({"a": s.decode()}).encode()),
    "repr of octets": ("escaped", lambda s: repr(s).encode()),
    "ascii": ("escaped", lambda s: ascii(s.decode()).encode()),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_secret_is_found_in_every_encoding(way: str) -> None:
    name, write = WAYS[way]
    assert name in MARKS.found_in(b"before " + write(SECRET) + b" after")


@pytest.mark.parametrize("way", WAYS)
def test_another_secret_is_not_found(way: str) -> None:
    assert not MARKS.found_in(b"before " + WAYS[way][1](SECRET.replace(b"4", b"5").replace(b"w", b"v")) + b" after")


@given(st.binary(min_size=12, max_size=40), st.binary(max_size=9), st.binary(max_size=9))
def test_octets_are_found_in_base64_and_hex(secret: bytes, before: bytes, after: bytes) -> None:
    marks, whole = Marks("any", secret), before + secret + after
    assert "base64" in marks.found_in(base64.b64encode(whole))
    assert "base64url" in marks.found_in(base64.urlsafe_b64encode(whole))
    assert "hex" in marks.found_in(whole.hex().encode())
    assert "raw" in marks.found_in(whole)


def test_too_short_mark_is_refused() -> None:
    with pytest.raises(AssertionError):
        Marks("pin", b"1234")
