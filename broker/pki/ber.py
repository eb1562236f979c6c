"""Turn BER into DER: indefinite lengths and strings in pieces, as EJBCA, BouncyCastle and Windows write containers."""

from dataclasses import dataclass
from typing import Final

from broker.errors import InputError

_LONG_SEQUENCES: Final = (b"\x30\x80", b"\x30\x81", b"\x30\x82", b"\x30\x83")
_DEEPEST: Final = 32
_MOST_ELEMENTS: Final = 50_000
_CONSTRUCTED: Final = 0x20
_OCTET_STRING: Final = 0x04
_LONG_TAG: Final = 0x1F
_INDEFINITE: Final = 0x80
_MAX_LENGTH_OCTETS: Final = 4
_END: Final = b"\x00\x00"
_LINE_BREAKS: Final = b"\r\n\t \x00\x1a"  # what editors and mail gateways add


def begins_structure(data: bytes) -> bool:
    """Return whether `data` begins as a certificate, a key or a container does: a sequence, long or all of it.

    The second byte distinguishes it from text that begins with the digit 0.
    """
    return data[:2] in _LONG_SEQUENCES or (0 < len(data) - 1 < _INDEFINITE and data[:2] == bytes((0x30, len(data) - 2)))


def to_der(data: bytes) -> bytes:
    """Return the structure in `data` as DER; what is DER comes back unchanged, so that signatures stay good.

    Raises `InputError` if it is damaged, or if more than a line break follows.
    """
    encoded, end = _Recoder(data).element(0, len(data), 0)
    if data[end:].strip(_LINE_BREAKS):
        raise InputError(f"{len(data) - end} stray bytes follow the DER structure", hint="ask for the file again")
    return encoded


@dataclass(slots=True)
class _Recoder:
    data: bytes
    left: int = _MOST_ELEMENTS

    def element(self, at: int, limit: int, depth: int) -> tuple[bytes, int]:
        """Return the element at `at` as DER, and where it ends, which may not be beyond `limit`."""
        data = self.data
        self.left -= 1
        if at + 2 > limit or depth > _DEEPEST or self.left < 0:
            raise _damaged()
        tag, length, start = data[at], data[at + 1], at + 2
        octets = length - _INDEFINITE  # of the length itself, if it is long
        if tag & _LONG_TAG == _LONG_TAG or octets > _MAX_LENGTH_OCTETS or (octets == 0 and not tag & _CONSTRUCTED):
            raise _damaged()
        if octets > 0:
            length, start = int.from_bytes(data[start : start + octets], "big"), start + octets
        end = limit if octets == 0 else start + length
        if end > limit:
            raise _damaged()
        if not tag & _CONSTRUCTED:
            return data[at:end], end
        parts, at = list[bytes](), start
        while at < end and not (octets == 0 and data[at : at + 2] == _END):
            part, at = self.element(at, end, depth + 1)
            parts.append(part)
        if octets == 0 and at == end:
            raise _damaged()  # no end-of-contents octets
        return _encoded(tag, parts), at + 2 if octets == 0 else end


def _encoded(tag: int, parts: list[bytes]) -> bytes:
    if tag == _OCTET_STRING | _CONSTRUCTED:
        tag, parts = _OCTET_STRING, [_content(part) for part in parts]
    content = b"".join(parts)
    if len(content) < _INDEFINITE:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, _INDEFINITE | len(length))) + length + content


def _content(encoded: bytes) -> bytes:
    """Return the content of one element that `_encoded` wrote or copied."""
    return encoded[2 + max(encoded[1] - _INDEFINITE, 0) :]


def _damaged() -> InputError:
    return InputError("the DER structure is cut off or damaged", hint="ask for the file again, as an attachment")
