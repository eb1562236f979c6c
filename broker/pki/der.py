"""Read the few DER structures that are needed as they were sent: names, SPKI, the kind of a file.

`cryptography` hides string types, cannot decode Teletex, and re-encodes what it returns.
"""

from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from broker.errors import InputError

INTEGER: Final = 0x02
OID: Final = 0x06
_LONG_TAG: Final = 0x1F
CONSTRUCTED: Final = 0x20
_OCTET_STRING: Final = 0x04
_INDEFINITE: Final = 0x80
_LONG_SEQUENCES: Final = (b"\x30\x80", b"\x30\x81", b"\x30\x82", b"\x30\x83")
_DEEPEST: Final = 32
_MOST_ELEMENTS: Final = 50_000
_END: Final = b"\x00\x00"
_LINE_BREAKS: Final = b"\r\n\t \x00\x1a"  # what editors and mail gateways add
_MAX_LENGTH_OCTETS: Final = 4


class Element(Struct, frozen=True):
    """One tag with its value: `content` without the header, `raw` with it."""

    tag: int
    content: bytes
    raw: bytes


def begins_structure(data: bytes) -> bool:
    """Return whether `data` begins as a certificate, a key or a container does: a sequence, long or all of it.

    The second byte distinguishes it from text that begins with the digit 0.
    """
    return data[:2] in _LONG_SEQUENCES or (0 < len(data) - 1 < _INDEFINITE and data[:2] == bytes((0x30, len(data) - 2)))


def to_der(data: bytes) -> bytes:
    """Return the BER structure in `data` as DER; what is DER comes back unchanged, so that signatures stay good.

    EJBCA, BouncyCastle and Windows write indefinite lengths and strings in pieces. Raises `InputError` if it is
    damaged, or if more than a line break follows.
    """
    encoded, end = _Recoder(data).element(0, len(data), 0)
    if data[end:].strip(_LINE_BREAKS):
        raise _stray(len(data) - end)
    return encoded


def only(data: bytes) -> Element:
    """Return the one element in `data`. Raises `InputError` if there is less or more."""
    element, end = _element_at(data, 0)
    if end != len(data):
        raise _stray(len(data) - end)
    return element


def children(element: Element) -> list[Element]:
    """Return the elements inside a constructed `element`. Raises `InputError` if they do not fill it exactly."""
    found, at = list[Element](), 0
    while at < len(element.content):
        child, at = _element_at(element.content, at)
        found.append(child)
    return found


def dotted(element: Element) -> str:
    """Return an object identifier as `2.5.4.3`. Raises `InputError` for another element."""
    content = element.content
    if element.tag != OID or not content or content[-1] & 0x80:
        raise _broken("an object identifier is cut off")
    arcs, arc = list[int](), 0
    for octet in content:
        arc = (arc << 7) | (octet & 0x7F)
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(number) for number in (first, arcs[0] - 40 * first, *arcs[1:]))


def _element_at(data: bytes, at: int) -> tuple[Element, int]:
    tag, start, end = _header(data, at, len(data))
    if end is None:
        raise _broken("the DER structure has a tag or a length that no certificate has")
    return Element(tag, data[start:end], data[at:end]), end


def _header(data: bytes, at: int, limit: int) -> tuple[int, int, int | None]:
    """Return the tag at `at`, and where its content begins and ends: None if its length is indefinite."""
    if at + 2 > limit:
        raise _broken("the DER structure is cut off")
    tag, length, start = data[at], data[at + 1], at + 2
    octets = length - _INDEFINITE  # of the length itself, if it is long
    if tag & _LONG_TAG == _LONG_TAG or octets > _MAX_LENGTH_OCTETS:
        raise _broken("the DER structure has a tag or a length that no certificate has")
    if octets == 0:
        return tag, start, None
    if octets > 0:
        length, start = int.from_bytes(data[start : start + octets], "big"), start + octets
    if start + length > limit:
        raise _broken("the DER structure is cut off")
    return tag, start, start + length


@dataclass(slots=True)
class _Recoder:
    data: bytes
    left: int = _MOST_ELEMENTS

    def element(self, at: int, limit: int, depth: int) -> tuple[bytes, int]:
        """Return the element at `at` as DER, and where it ends, which may not be beyond `limit`."""
        data = self.data
        tag, start, end = _header(data, at, limit)
        self.left -= 1
        if depth > _DEEPEST or self.left < 0 or not (tag & CONSTRUCTED or end):
            raise _broken("the DER structure is damaged")
        if not tag & CONSTRUCTED and end:
            return data[at:end], end
        parts, at = list[bytes](), start
        while at < (end or limit) and (end or data[at : at + 2] != _END):
            part, at = self.element(at, end or limit, depth + 1)
            parts.append(part)
        if end is None and at == limit:
            raise _broken("the DER structure is cut off")  # no end-of-contents octets
        return _encoded(tag, parts), end or at + 2


def _encoded(tag: int, parts: list[bytes]) -> bytes:
    if tag == _OCTET_STRING | CONSTRUCTED:
        tag, parts = _OCTET_STRING, [part[2 + max(part[1] - _INDEFINITE, 0) :] for part in parts]
    content = b"".join(parts)
    if len(content) < _INDEFINITE:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, _INDEFINITE | len(length))) + length + content


def _stray(count: int) -> InputError:
    return InputError(f"{count} stray bytes follow the DER structure", hint="ask for the file again")


def _broken(message: str) -> InputError:
    return InputError(message, hint="the file is damaged: ask for it again, as an attachment")
