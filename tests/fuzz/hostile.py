"""Hostile certificates and requests made on purpose, with good signatures: what random changes seldom hit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import pki
from tests.support.pki import tlv

READ: Final = (".pem", ".der", ".crt", ".cer", ".csr", ".p7b", ".p7c", ".p7m", ".key")
DEEP: Final = 2000
_CN: Final = bytes.fromhex("0603550403")
_UTF8, _PRINTABLE, _TELETEX, _IA5, _UNIVERSAL, _BMP = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E
_CODECS: Final = (
    *((_UTF8, "utf-8"), (_TELETEX, "utf-8"), (_IA5, "utf-8"), (_BMP, "utf-16-be")),
    (0x04, "utf-8"),  # no string
)
_TEXTS: Final = (
    *("a\0b", "\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "\u2066x\u2069", "\u200b", "a\r\nb", "\x9b31m", "\u2028"),
    *("e\u0301" * 5000, "\u0301\u0316" * 5000, "{{" * 10_000, "\ufffe", "\U000e0041", "% s %s {0}", "a" * 20_000, ""),
)
Made = Iterator[bytes]


def _positions(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where each header's length begins and ends."""
    at = start
    while at + 2 <= end:
        octets = data[at + 1] - 0x80 if data[at + 1] > 0x80 else 0
        body = at + 2 + octets
        length = int.from_bytes(data[at + 2 : body], "big") if octets else data[at + 1]
        if body + length > end:
            return
        yield at + 1, body
        if data[at] & 0x20 or data[at] in (0x03, 0x04):  # what may hold others
            yield from _positions(data, body + (data[at] == 0x03), body + length)
        at = body + length


def lengths(good: bytes, _ca: pki.Ca) -> Made:
    """Lie about the length at every place."""
    for begin, end in _positions(good, 0, len(good)):
        size = int.from_bytes(good[begin + 1 : end], "big") if end - begin > 1 else good[begin]
        lies = (size + 1, max(size - 1, 0), 0, 0x7F, 0xFFFF)
        encoded = [tlv(0x30, bytes(lie))[1 : -lie or None] for lie in lies]
        for lie in (*encoded, b"\x80", b"\xff", b"\x84\xff\xff\xff\xff", b"\x88" + b"\xff" * 8, b"\x82\0\1"):
            yield good[:begin] + lie + good[end:]


def nested(good: bytes, ca: pki.Ca) -> Made:
    """Nest values two thousand deep, as a name, in an extension or attribute, and as the whole."""
    for tag in (0x30, 0x31, 0xA0, 0x24, 0x2C):
        deep = b""
        for _ in range(DEEP):
            deep = tlv(tag, deep)
        yield deep
        yield from _with_name(good, ca, deep)
        yield from _with_name(good, ca, tlv(0x30, tlv(0x31, tlv(0x30, _CN, deep))))
        yield from _with_last(good, ca, deep)
        for oid in (15, 17, 19, 30, 37):
            one = tlv(0x30, tlv(6, bytes((0x55, 0x1D, oid))), tlv(4, deep))
            yield from _with_last(good, ca, tlv(0x30, one))


def names(good: bytes, ca: pki.Ca) -> Made:
    """Names with any text in any string type, broken ones, thousands of attributes, huge identifiers."""
    for text in _TEXTS:
        for tag, codec in _CODECS:
            value = tlv(tag, text.encode(codec, "replace"))
            yield from _with_name(good, ca, tlv(0x30, tlv(0x31, tlv(0x30, _CN, value))))
    broken = ((_UTF8, b"\xff\xfe"), (_BMP, b"\xd8\0"), (_BMP, b"a"), (_UNIVERSAL, b"\0\x11\0\0"), (0x3F, b"x"))
    for tag, content in broken:
        yield from _with_name(good, ca, tlv(0x30, tlv(0x31, tlv(0x30, _CN, tlv(tag, content)))))
    one = tlv(0x30, _CN, tlv(_PRINTABLE, b"x"))
    many = (tlv(0x30, *[tlv(0x31, one)] * 1500), tlv(0x30, tlv(0x31, *[one] * 1500)))
    for structure in (*many, tlv(0x30, tlv(0x31)), tlv(0x30)):
        yield from _with_name(good, ca, structure)
    for oid in (b"\x2a" + b"\xff" * 5000 + b"\x7f", b"\x80", b"", b"\x2a\x80"):
        yield from _with_name(good, ca, tlv(0x30, tlv(0x31, tlv(0x30, tlv(6, oid), tlv(_UTF8, b"x")))))


def numbers(good: bytes, ca: pki.Ca) -> Made:
    """Versions, serial numbers and dates that no program writes; extensions by the hundred, broken or doubled."""
    for content in (b"", b"\0", b"\xff" * 9000, b"\x80", b"\1", b"\3"):
        yield from _changed(good, ca, lambda fields, c=content: [fields[0], tlv(2, c), *fields[2:]])  # type: ignore[misc]
        yield from _changed(good, ca, lambda fields, c=content: [tlv(0xA0, tlv(2, c)), *fields[1:]])  # type: ignore[misc]
    for date in (b"000000000000Z", b"99123123595Z", b"", b"500101000000Z", b"\xff" * 13):
        for tag in (0x17, 0x18):
            validity = tlv(0x30, tlv(tag, date), tlv(tag, date))
            yield from _changed(good, ca, lambda fields, v=validity: [*fields[:4], v, *fields[5:]])  # type: ignore[misc]
    values = (b"", b"\0", b"\5\0", tlv(0x30), tlv(3), tlv(3, b"\0"), tlv(1, b""), tlv(0x30, tlv(2, b"\xff" * 90)))
    for oid in (15, 17, 19, 30, 32, 35, 37):
        for value in values:
            one = tlv(0x30, tlv(6, bytes((0x55, 0x1D, oid))), tlv(1, b"\xff"), tlv(4, value))
            yield from _with_last(good, ca, tlv(0x30, one))
            yield from _with_last(good, ca, tlv(0x30, *[one] * 300))


def _with_name(good: bytes, ca: pki.Ca, name: bytes) -> Made:
    """Put `name` where the subject is, and where a certificate has its issuer."""
    yield from _changed(good, ca, lambda fields: [*fields[:1], name, *fields[2:]])
    yield from _changed(good, ca, lambda fields: [*fields[:5], name, *fields[6:]])
    yield from _changed(good, ca, lambda fields: [*fields[:3], name, *fields[4:]])


def _with_last(good: bytes, ca: pki.Ca, content: bytes) -> Made:
    """Put `content` where extensions are, or a request's attributes."""
    yield from _changed(good, ca, lambda fields: [*fields[:-1], tlv(0xA3, content)])
    yield from _changed(good, ca, lambda fields: [*fields[:-1], tlv(0xA0, content)])


def _changed(good: bytes, ca: pki.Ca, change: Callable[[list[bytes]], list[bytes]]) -> Made:
    assert isinstance(ca.key, rsa.RSAPrivateKey)
    yield pki.altered_der(good, ca.key, change)


GROUPS: Final[Mapping[str, Callable[[bytes, pki.Ca], Made]]] = {
    "lengths": lengths,
    "nested": nested,
    "names": names,
    "numbers": numbers,
}
