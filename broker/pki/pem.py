"""Read PEM (RFC 7468) as mail programs and editors leave it: text around, CRLF, BOM, UTF-16, one long line."""

import base64
import binascii
import codecs
import re
from dataclasses import dataclass
from typing import Final

from broker.errors import InputError
from broker.model.secret import Secret

_BEGIN: Final = "-----BEGIN "
_DASHES: Final = "-----"
_MOST_BLOCKS: Final = 64
_LABEL: Final = re.compile(r"[A-Z0-9#][A-Z0-9# ]{0,39}")
_HEADER: Final = re.compile(r"^[A-Za-z0-9-]+:.*$", re.MULTILINE)  # "Proc-Type: 4,ENCRYPTED"


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """A PEM block. `der` of a private key is empty: only `material` looks into `key`.

    That is the key's DER, or the whole block if its headers say how it is encrypted (RFC 1421, 4.6.1.3).
    """

    label: str
    der: bytes
    key: Secret[bytes] | None = None

    @property
    def is_private_key(self) -> bool:
        """Return whether it is a private key, encrypted or not."""
        return self.label.endswith("PRIVATE KEY")


def text_of(data: bytes) -> str:
    """Return `data` as text: UTF-16 if it has that byte order mark, else UTF-8. Other bytes become U+FFFD."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def blocks_and_text(data: bytes) -> tuple[tuple[Block, ...], str]:
    """Return all PEM blocks in `data`, in order, and the text around them.

    Raises `InputError` if a block is cut off or damaged. The first fault ends the search, so that hostile text costs
    no more than one pass.
    """
    text = text_of(data)
    blocks: list[Block] = []
    around: list[str] = []
    at = 0
    while (begin := text.find(_BEGIN, at)) >= 0:
        if len(blocks) == _MOST_BLOCKS:
            raise InputError(f"the file has more than {_MOST_BLOCKS} PEM blocks", hint="is this the right file?")
        body = text.find(_DASHES, begin + len(_BEGIN), begin + len(_BEGIN) + 60)
        label = text[begin + len(_BEGIN) : max(body, 0)]
        if not _LABEL.fullmatch(label):
            raise InputError(f"PEM block {len(blocks) + 1} has a broken BEGIN line", hint="copy the whole file again")
        end_line = f"{_DASHES}END {label}{_DASHES}"
        end = text.find(end_line, body)
        if end < 0:
            message = f"PEM block {len(blocks) + 1} ({label}) has no END line: it is cut off"
            raise InputError(message, hint="copy the whole file again")
        blocks.append(_block(label, text[body + len(_DASHES) : end]))
        around.append(text[at:begin])
        at = end + len(end_line)
    return tuple(blocks), "\n".join([*around, text[at:]])


def _block(label: str, body: str) -> Block:
    is_key = label.endswith("PRIVATE KEY")
    if is_key and "DEK-Info:" in body:
        return Block(label, b"", Secret(f"{_BEGIN}{label}{_DASHES}{body}{_DASHES}END {label}{_DASHES}\n".encode()))
    body = _HEADER.sub("", body).replace("\\n", "")  # a literal \n comes from JSON or a shell
    try:
        octets = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):  # without its cause, which may quote a key
        hint = "ask for the file again, as an attachment"
        raise InputError(f"a PEM block ({label}) is not base64: it is damaged", hint=hint) from None
    return Block(label, b"", Secret(octets)) if is_key else Block(label, octets)
