"""Find client_ids in the text of a reply: only values that the text itself calls a client_id.

Other identifiers are not client_ids: a Message-ID, a boundary, the id of a portal's own login in a link.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_MOST_CLIENT_IDS: Final = 8
_QUOTES: Final = "\"'`*\u2018\u2019\u201c\u201d"
_GAP: Final = rf"[ \t\xa0{_QUOTES}]{{0,4}}"
# The value must end with a word, else it was cut: by quoted-printable ("=3D" and "=" at a line's end), or with "…".
_LABELLED: Final = re.compile(
    rf"(?<![\w?&;#%./-])client[ _-]?id{_GAP}(?::|=(?!3D)){_GAP}(?:\r?\n{_GAP})?"
    rf"([A-Za-z0-9][A-Za-z0-9._~-]{{6,126}}[A-Za-z0-9])(?=[\s{_QUOTES}<>,;&)\]}}|]|[.!?:](?:[\s{_QUOTES}<)]|\Z)|\Z)",
    re.IGNORECASE,
)
_LABEL: Final = re.compile(r"client[ _-]?id", re.IGNORECASE)
_BINARY: Final = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f]")  # \x1a ends text on Windows, \x1b colours a terminal's
_HEADER: Final = re.compile(r"[!-9;-~]+:|[ \t]|--|From ")  # RFC 5322, 2.2; RFC 2046, 5.1.1; an mbox's first line
_OF_MAIL: Final = re.compile(
    r"(?:message-id|received|return-path|delivered-to|mime-version|dkim-signature|content-[a-z-]+|x-[a-z-]+):",
    re.IGNORECASE,
)
_OF_LETTER: Final = re.compile(r"(?:from|sent|to|cc|date|subject|reply-to|in-reply-to|references):", re.IGNORECASE)


def client_ids_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the client_ids in `texts`, each once, in order, at most eight. A word without a digit is none."""
    found = dict.fromkeys(value for text in texts for value in _labelled(text) if any(c.isdigit() for c in value))
    return tuple(found)[:_MOST_CLIENT_IDS]


def labelled_by_name(name: str, text: str) -> str:
    """Return `text` with a label if its file is called client_id.txt and holds one word, else unchanged."""
    stem = name.rsplit("/", 1)[-1].split(".", 1)[0]
    return f"client_id: {text.strip()}" if _LABEL.fullmatch(stem) and len(text.split()) == 1 else text


def _labelled(text: str) -> Iterator[str]:
    if _BINARY.search(text):
        return
    for match in _LABELLED.finditer(_without_headers(text)):
        yield match.group(1)


def _without_headers(text: str) -> str:
    """Return `text` with dashes in place of each block of mail or MIME headers."""
    blocks = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))
    return "\n\n".join("----" if is_headers(block) else block for block in blocks)


def is_headers(block: str) -> bool:
    """Return whether `block`, a paragraph, is the headers of a mail or of a part of one."""
    lines = block.strip("\n").split("\n")
    if not all(_HEADER.match(line) for line in lines):
        return False
    return any(map(_OF_MAIL.match, lines)) or sum(bool(_OF_LETTER.match(line)) for line in lines) > 1
