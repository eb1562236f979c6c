"""Letters as mails: plain text, 72 columns wide, with a calendar entry. The same letter makes the same bytes."""

import hashlib
import textwrap
from collections.abc import Iterator
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from broker.addresses import new_mail
from broker.model.duration import counted
from broker.model.letter import Item, Letter, LetterKind
from broker.model.notice import Reminder
from broker.people.calendar import calendar, withdrawal

_WIDTH: Final = 72
_SUBJECT: Final = 120  # characters
_WHY: Final = "This is an automatic message of broker. The address is set by: broker account set ACCOUNT --team MAIL"


def mail(letter: Letter, sender: str) -> EmailMessage:
    """Return the mail; raise `InputError` for an invalid address."""
    message = new_mail(sender, letter.to)
    message["Subject"] = subject(letter)
    message["Date"] = format_datetime(letter.at)
    message["Message-ID"] = letter.message_id
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer by a machine
    message.set_content("\n".join(_body(letter)) + "\n", cte="quoted-printable")
    files = {"certificate.ics": calendar(letter, sender), "withdrawn.ics": withdrawal(letter, sender)}
    for name, content in files.items():
        if content:
            message.add_attachment(content, maintype="text", subtype="calendar", filename=name)
    if message.is_multipart():
        # The default boundary is random; this one occurs in no base64 or quoted-printable text
        message.set_boundary("=_" + hashlib.sha256(letter.id.encode()).hexdigest()[:32])
    return message


def subject(letter: Letter) -> str:
    """Return the subject: one printable line."""
    match letter.kind:
        case LetterKind.TEST:
            text = "broker: test of notices"
        case LetterKind.REMINDER:
            text = _words(letter).subject
        case LetterKind.ALERT:
            text = f"{letter.items[0].account}: you must act: {letter.items[0].notice.message}"
        case LetterKind.DIGEST:
            accounts = sorted({item.account for item in letter.items})
            text = f"broker: news of {', '.join(accounts)}"
    line = " ".join(plain(text).split())
    return line if len(line) <= _SUBJECT else f"{line[: _SUBJECT - 1]}…"


def plain(text: str) -> str:
    """Return `text` without control characters: no name adds a header, and none controls a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _body(letter: Letter) -> Iterator[str]:
    match letter.kind:
        case LetterKind.TEST:
            yield from _wrapped("Notices reach this address. Nothing is to be done.")
            yield from ("", "  broker notify list", "", *_wrapped("shows when each address was tested."))
        case LetterKind.REMINDER:
            yield from map(plain, _words(letter).body.splitlines())
            return
        case LetterKind.ALERT:
            yield from _wrapped("You must act: this does not go on by itself, or not in time.")
        case LetterKind.DIGEST:
            yield from _wrapped(f"{counted(len(letter.items), 'account has', 'accounts have')} news.")
    for item in letter.items:
        yield from ("", str(item.account), "=" * len(item.account), *_item(item))
    if letter.withdrawn:
        over = ", ".join(plain(entry.uid) for entry in letter.withdrawn)
        yield from ("", *_wrapped(f"Over: {over}. The file withdrawn.ics removes this from your calendar."))
    yield from ("", "-- ", *_wrapped(_WHY))


def _item(item: Item) -> Iterator[str]:
    notice = item.notice
    yield from _wrapped(plain(notice.message))
    yield from ("", "Next:", "", *_commands(plain(notice.hint) or f"broker status {item.account}"), "")
    if notice.expires_at:
        yield from _field("Ends", _when(notice.expires_at))
    yield from _field("Used by", ", ".join(map(plain, notice.uses)) or "nobody")
    yield from _field("Replaced by", plain(notice.replaced_by))
    yield f"{'Event':13}{plain(item.key)}"


def _words(letter: Letter) -> Reminder:
    return letter.items[0].notice.reminder or Reminder("", "")


def _commands(hint: str) -> Iterator[str]:
    """Yield each part of a hint on lines of its own. A command is never broken."""
    for part in filter(None, (part.strip() for part in hint.split(";"))):
        if part.startswith("broker "):
            yield f"  {part}"
        else:
            yield from _wrapped(part, "  ")


def _field(name: str, value: str) -> Iterator[str]:
    lines = textwrap.wrap(value, _WIDTH - 13, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{name:13}{lines[0]}"
    yield from (f"{'':13}{line}" for line in lines[1:])


def _wrapped(text: str, indent: str = "") -> Iterator[str]:
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _when(moment: datetime) -> str:
    return f"{moment:%F %H:%M} UTC"
