"""Calendar entries for notices, as iCalendar text (RFC 5545): one entry for an account and step."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from broker.model.letter import Item, Letter
from broker.model.recipient import Entry

_OCTETS: Final = 75  # of a line (RFC 5545, 3.1)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": ""})


def calendar(letter: Letter, sender: str) -> bytes:
    """Return a calendar with the end of each certificate in `letter`; b"" if there is none.

    A later notice of the same step has the same UID and a higher SEQUENCE, so a calendar replaces the entry.
    """
    entries = {entry.uid: entry for entry in letter.entries}
    events = [
        line
        for item in letter.items
        if item.notice.expires_at and (entry := entries.get(f"{item.account}.{item.notice.step}"))
        for line in _event(entry, item.notice.at, sender, _published(item, item.notice.expires_at))
    ]
    return _calendar("PUBLISH", events)


def withdrawal(letter: Letter, sender: str) -> bytes:
    """Return a calendar that removes the entries whose steps are over (RFC 5546, 3.2.5); b"" if there is none."""
    lines = [line for e in letter.withdrawn for line in _event(e, letter.at, sender, ["STATUS:CANCELLED"])]
    return _calendar("CANCEL", lines)


def _calendar(method: str, events: Iterable[str]) -> bytes:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//credential-broker//notices//EN", f"METHOD:{method}", *events]
    return b"".join(map(_folded, [*lines, "END:VCALENDAR"])) if events else b""


def _event(entry: Entry, at: datetime, sender: str, more: Iterable[str]) -> Iterator[str]:
    yield "BEGIN:VEVENT"
    yield f"UID:{_text(entry.uid)}@credential-broker.invalid"
    yield f"SEQUENCE:{entry.sequence}"
    yield f"DTSTAMP:{_time(at)}"
    yield f"ORGANIZER:mailto:{quote(sender, safe='@')}"
    yield from more
    yield "END:VEVENT"


def _published(item: Item, end: datetime) -> Iterator[str]:
    yield f"DTSTART:{_time(end)}"
    yield f"SUMMARY:{_text(f'{item.account}: its certificate ends')}"
    yield f"DESCRIPTION:{_text(f'{item.notice.message}{chr(10)}Next: {item.notice.hint}')}"
    yield "TRANSP:TRANSPARENT"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).translate(_ESCAPES)


def _folded(line: str) -> bytes:
    """Return a line in pieces of 75 octets at most, no character of UTF-8 cut in two."""
    pieces, piece = list[bytes](), b""
    for character in line:
        octets = character.encode()
        if len(piece) + len(octets) > _OCTETS:
            pieces.append(piece)
            piece = b" "
        piece += octets
    return b"\r\n".join([*pieces, piece]) + b"\r\n"
