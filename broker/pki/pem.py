"""Find PEM (RFC 7468) in text as mail programs, portals and people leave it.

Around it may stand any text. It may be quoted ("> "), decorated, numbered, in JSON, in HTML, in UTF-16, have other
dashes, or no BEGIN and END lines.
"""

import base64
import codecs
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from broker.errors import InputError
from broker.model.secret import Secret
from broker.pki import der
from broker.pki.kinds import Kind, kind_of

_MOST_BLOCKS: Final = 64
_BOMS: Final = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SAMPLE: Final = 4096
# Word processors turn "--" into one long dash.
_DASHES: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2212\ufe63\uff0d\u2500", "-") | dict.fromkeys("\u2013\u2014\u2015", "--")
)
_MARK: Final = re.compile(
    r"(?<!-)-{2,10}[ \t\xa0]?(BEGIN|END) ([A-Z0-9#](?:[A-Z0-9# ]{0,38}[A-Z0-9#])?)[ \t\xa0]?-{2,10}"
)
_ESCAPES: Final = {"\\r": "\n", "\\n": "\n", "\\/": "/", "\\u002B": "+", "\\u002b": "+"}  # of JSON and shells
_ESCAPED: Final = re.compile(r"\\(?:[rn/]|u002[Bb])")
_HEADER: Final = re.compile(r"^[A-Za-z][A-Za-z0-9-]*:.*$", re.MULTILINE)  # "Proc-Type: 4,ENCRYPTED"
_TAG: Final = re.compile(r"<[^<>]{1,40}>")
_NUMBER: Final = re.compile(r"^\d{1,5}[.:)|]?(?:\s+|$)")
_PREFIX: Final = 20  # characters of decoration before BEGIN, at most
_AROUND: Final = " \t\xa0\u200b\u200e\u00ad\ufeff>|*#\"'`,;.:\\"
_PROSE: Final = 64  # characters between BEGIN and END on one line; fewer are a sentence about PEM
_BARE: Final = re.compile(r"(?<![A-Za-z0-9+/])MI[AGHIJKLMNOP][A-Za-z0-9+/][A-Za-z0-9+/=\s>|]{80,}")
_ENCODED: Final = re.compile(r"(?<![A-Za-z0-9+/])LS0tLS1CRUdJTi[A-Za-z0-9+/=\s>|]{80,}")  # base64 of "-----BEGIN "
_BETWEEN: Final = re.compile(r"[\s>|]+")
_SHORTEST: Final = 80
_INDEFINITE: Final = 0x80


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """A PEM block. `der` of a private key is empty: only `material` looks into `key`.

    That is the key's DER, or the whole block if its headers say how it is encrypted (RFC 1421, 4.6.1.3).
    """

    label: str  # "" if there was no BEGIN line
    der: bytes
    key: Secret[bytes] | None = None


class Scan(Struct, frozen=True):
    """All that was found in a text."""

    blocks: tuple[Block, ...]
    text: str  # around the blocks
    faults: tuple[InputError, ...]  # of blocks that are cut off or damaged


def text_of(data: bytes) -> str:
    """Return `data` as text: UTF-16 with or without a byte order mark, else UTF-8. Other bytes become U+FFFD."""
    sample = data[:_SAMPLE]
    if codec := _BOMS.get(sample[:2]):
        return data.decode(codec, errors="replace")
    for first, codec in ((0, "utf-16-be"), (1, "utf-16-le")):  # ASCII in UTF-16 is NUL in each second byte
        if len(sample) > 1 and sample[first::2].count(0) * 4 > len(sample) and sample[1 - first :: 2].count(0) == 0:
            return data.decode(codec, errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def blocks_in(data: bytes) -> tuple[Block, ...]:
    """Return all PEM blocks in `data`, in order.

    Raises `InputError` if a block is cut off or damaged.
    """
    found = scan(text_of(data))
    if found.faults:
        raise found.faults[0]
    return found.blocks


def scan(text: str) -> Scan:
    """Find all PEM blocks in `text`, in one pass. Raises `InputError` for too many."""
    if "\\" in text:
        text = _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text)
    text = text.translate(_DASHES)
    found, around, at = list[Block | InputError](), list[str](), 0
    marks = [m for m in _MARK.finditer(text) if not m[2].startswith("PGP ")]
    for begin, end in itertools.zip_longest(marks, marks[1:]):
        if begin[1] == "END" or begin.start() < at:
            continue
        if len(found) == _MOST_BLOCKS:
            raise InputError(f"the file has more than {_MOST_BLOCKS} PEM blocks", hint="is this the right file?")
        body = text[begin.end() : end.start() if end else None]
        if end and end.groups() == ("END", begin[2]):
            found += _complete(begin, body)
            around.append(text[at : begin.start()])
            at = end.end()
        elif not any(_bare(body)):  # else its END line is misspelt, and the block is found below
            message = f"PEM block {len(found) + 1} ({begin[2]}) has no END line: it is cut off"
            found.append(InputError(message, hint="copy the whole file again"))
    around.append(text[at:])
    rest = "\n".join(around)
    for encoded in _ENCODED.finditer(rest):  # each layer of base64 has a quarter less
        inner = scan(text_of(from_base64(_whole(_BETWEEN.sub("", encoded[0]))) or b""))
        found += [*inner.blocks, *inner.faults]
    blocks = [one for one in found if isinstance(one, Block)]
    faults = tuple(one for one in found if isinstance(one, InputError))
    return Scan((*blocks, *itertools.islice(_bare(rest), _MOST_BLOCKS)), rest, faults)


def _complete(begin: re.Match[str], body: str) -> list[Block | InputError]:
    """Return the block that `begin` opens, or its fault; nothing if it is a sentence about PEM."""
    label, is_key = begin[2], begin[2].endswith("PRIVATE KEY")
    if "\n" not in body and len(body) < _PROSE:
        return []
    if is_key and "DEK-Info:" in body:
        return [Block(label, b"", Secret(f"-----BEGIN {label}-----{body}-----END {label}-----\n".encode()))]
    prefix = begin.string[max(begin.start() - _PREFIX, 0) : begin.start()].rpartition("\n")[2].strip()
    body = _HEADER.sub("", body)
    octets = from_base64(body) or from_base64(_undecorated(body, prefix))
    if not octets:
        hint = "ask for the file again, as an attachment"
        return [InputError(f"a PEM block ({label}) is not base64: it is damaged", hint=hint)]
    return [Block(label, b"", Secret(octets)) if is_key else Block(label, octets)]


def from_base64(body: str | bytes) -> bytes | None:
    """Return what `body` is the base64 of, None if it is not base64, or of nothing."""
    try:
        octets = body.encode() if isinstance(body, str) else body
        return base64.b64decode(b"".join(octets.split()), validate=True) or None
    except ValueError:  # not reported: it may quote a key
        return None


def _undecorated(body: str, prefix: str) -> str:
    """Return base64 without the `prefix` that its BEGIN line has, line numbers, quotes, HTML and quoted-printable."""
    body = _TAG.sub("\n", body).replace("=3D", "=")
    lines = [_NUMBER.sub("", line.strip().removeprefix(prefix)).strip(_AROUND) for line in body.splitlines()]
    joined = "".join(line.rstrip("=") for line in lines if any(c.isalnum() for c in line))
    return joined + "=" * (-len(joined) % 4)


def _bare(text: str) -> Iterator[Block]:
    """Yield the structures in base64 without BEGIN and END lines. Their own length says where they end."""
    for found in _BARE.finditer(text):
        left = _BETWEEN.sub("", found[0])
        while octets := _first_structure(left):
            left = left[-(-len(octets) // 3) * 4 :]
            if (kind := _kind(octets)) in (Kind.KEY, Kind.ENCRYPTED_KEY):
                yield Block(kind.value.upper(), b"", Secret(octets))
            elif kind is not Kind.OTHER:
                yield Block("", octets)


def _first_structure(text: str) -> bytes:
    """Return the structure that the base64 `text` begins with, b"" if there is none or it is cut off."""
    if len(text) < _SHORTEST or not text.startswith("MI"):
        return b""
    head = base64.b64decode(text[:8])
    octets = head[1] - _INDEFINITE  # of the length
    if octets == 0:
        return from_base64(_whole(text)) or b""
    size = 2 + octets + int.from_bytes(head[2 : 2 + octets], "big")
    taken = text[: -(-size // 3) * 4]
    found = from_base64(taken + "=" * (-len(taken) % 4)) or b""
    return found[:size] if len(found) >= size else b""


def _whole(text: str) -> str:
    """Return base64 up to its padding, in whole groups of four."""
    length = text.find("=") + 3 if "=" in text else len(text)
    return text[: length // 4 * 4]


def _kind(structure: bytes) -> Kind:
    try:
        return kind_of(der.to_der(structure))
    except InputError:
        return Kind.OTHER
