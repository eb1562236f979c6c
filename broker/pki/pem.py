"""Read PEM (RFC 7468) as mail programs and editors leave it: text around, CRLF, BOM, UTF-16, one long line."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from dataclasses import dataclass
from typing import Final

from broker.errors import InputError

__all__ = ["Block", "blocks_in", "text_of", "text_outside"]

_BEGIN: Final = "-----BEGIN "
_DASHES: Final = "-----"
_MOST_BLOCKS: Final = 64
_LABEL: Final = re.compile(r"[A-Z0-9#][A-Z0-9# ]{0,39}")
_HEADER: Final = re.compile(r"^[A-Za-z0-9-]+:.*$", re.MULTILINE)  # "Proc-Type: 4,ENCRYPTED"


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """A PEM block. `der` of a private key is empty: none is ever read from a file like this."""

    label: str
    der: bytes

    @property
    def is_private_key(self) -> bool:
        """Whether it is a private key, encrypted or not."""
        return self.label.endswith("PRIVATE KEY")


def text_of(data: bytes) -> str:
    """Return `data` as text: UTF-16 if it has that byte order mark, else UTF-8. Other bytes become U+FFFD."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def blocks_in(data: bytes) -> tuple[Block, ...]:
    """Return all PEM blocks in `data`, in order. Raises `InputError` if one is cut off or damaged."""
    text = text_of(data)
    return tuple(_block(text, *span) for span in _spans(text))


def text_outside(data: bytes) -> str:
    """Return the text around the PEM blocks. Raises `InputError` as `blocks_in`."""
    text = text_of(data)
    kept, at = [], 0
    for begin, _, _, end in _spans(text):
        kept.append(text[at:begin])
        at = end
    return "\n".join([*kept, text[at:]])


def _spans(text: str) -> list[tuple[int, int, int, int]]:
    """Return for each block: where BEGIN starts, where the body starts and ends, where END ends.

    The first fault ends the search, so that hostile text costs no more than one pass.
    """
    spans: list[tuple[int, int, int, int]] = []
    at = text.find(_BEGIN)
    while at >= 0:
        if len(spans) == _MOST_BLOCKS:
            raise InputError(f"the file has more than {_MOST_BLOCKS} PEM blocks", hint="is this the right file?")
        label_end = text.find(_DASHES, at + len(_BEGIN), at + len(_BEGIN) + 60)
        label = text[at + len(_BEGIN) : max(label_end, 0)]
        if not _LABEL.fullmatch(label):
            raise InputError(f"PEM block {len(spans) + 1} has a broken BEGIN line", hint="copy the whole file again")
        end_line = f"{_DASHES}END {label}{_DASHES}"
        body_end = text.find(end_line, label_end)
        if body_end < 0:
            message = f"PEM block {len(spans) + 1} ({label}) has no END line: it is cut off"
            raise InputError(message, hint="copy the whole file again")
        spans.append((at, label_end + len(_DASHES), body_end, body_end + len(end_line)))
        at = text.find(_BEGIN, spans[-1][3])
    return spans


def _block(text: str, begin: int, body_start: int, body_end: int, _end: int) -> Block:
    label = text[begin + len(_BEGIN) : body_start - len(_DASHES)]
    if label.endswith("PRIVATE KEY"):
        return Block(label, b"")
    body = _HEADER.sub("", text[body_start:body_end]).replace("\\n", "")  # a literal \n comes from JSON or a shell
    try:
        return Block(label, base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"a PEM block ({label}) is not base64: it is damaged", hint="ask for the file again, as an attachment"
        ) from error
