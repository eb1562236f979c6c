"""Calendar entries for notices, as iCalendar text (RFC 5545): one entry for an account and step."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from broker.model.letter import Item, Letter

_OCTETS: Final = 75  # of a line (RFC 5545, 3.1)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": ""})


def calendar(letter: Letter) -> bytes:
    """Return a calendar with the end of each certificate in `letter`; b"" if there is none.

    A later notice of the same step has the same UID and a higher SEQUENCE, so a calendar replaces the entry.
    """
    events = [line for item in letter.items if item.notice.expires_at for line in _event(item, item.notice.expires_at)]
    if not events:
        return b""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//credential-broker//notices//EN", "METHOD:PUBLISH"]
    return b"".join(map(_folded, [*lines, *events, "END:VCALENDAR"]))


def _event(item: Item, end: datetime) -> Iterable[str]:
    notice = item.notice
    yield "BEGIN:VEVENT"
    yield f"UID:{_text(f'{item.account}.{notice.step}')}@credential-broker.invalid"
    yield f"SEQUENCE:{int(notice.at.timestamp() // 60)}"
    yield f"DTSTAMP:{_time(notice.at)}"
    yield f"DTSTART:{_time(end)}"
    yield f"SUMMARY:{_text(f'{item.account}: its certificate ends')}"
    yield f"DESCRIPTION:{_text(f'{notice.message}{chr(10)}Next: {notice.hint}')}"
    yield "TRANSP:TRANSPARENT"
    yield "END:VEVENT"


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
