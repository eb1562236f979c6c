"""Read the few DER structures that are needed as they were sent: names, SPKI, the kind of a file.

`cryptography` hides string types, cannot decode Teletex, and re-encodes what it returns.
"""

from dataclasses import dataclass
from typing import Final

from broker.errors import InputError

INTEGER: Final = 0x02
OID: Final = 0x06
_LONG_TAG: Final = 0x1F
_LONG_LENGTH: Final = 0x80
_MAX_LENGTH_OCTETS: Final = 4


@dataclass(frozen=True, slots=True)
class Element:
    """One tag with its value: `content` without the header, `raw` with it."""

    tag: int
    content: bytes
    raw: bytes


def is_der(data: bytes) -> bool:
    """Return whether `data` begins as every request, certificate or container does: a sequence of over 127 bytes.

    The second byte distinguishes it from text that begins with the digit 0.
    """
    return data[:2] in (b"\x30\x81", b"\x30\x82", b"\x30\x83")


def only(data: bytes) -> Element:
    """Return the one element in `data`. Raises `InputError` if there is less or more."""
    element, end = _element_at(data, 0)
    if end != len(data):
        raise InputError(f"{len(data) - end} stray bytes follow the DER structure", hint="ask for the file again")
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
    if at + 2 > len(data):
        raise _broken("the DER structure is cut off")
    tag, length, start = data[at], data[at + 1], at + 2
    octets = length - _LONG_LENGTH  # of the length itself, if it is long
    if tag & _LONG_TAG == _LONG_TAG or octets == 0 or octets > _MAX_LENGTH_OCTETS:
        raise _broken("the DER structure has a tag or a length that no certificate has")
    if octets > 0:
        length, start = int.from_bytes(data[start : start + octets], "big"), start + octets
    end = start + length
    if end > len(data):
        raise _broken("the DER structure is cut off")
    return Element(tag, data[start:end], data[at:end]), end


def _broken(message: str) -> InputError:
    return InputError(message, hint="the file is damaged: ask for it again, as an attachment")
