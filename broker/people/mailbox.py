"""The watched mailbox over IMAP: mails after a mark, a bounded number a poll.

It is opened with EXAMINE and read with BODY.PEEK, so that nothing in it changes. Only if a folder to move to is
configured, it is opened with SELECT, and a mail that is about an account is moved there. No mail is deleted.
"""

import imaplib
import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import InputError
from broker.people.imap import ImapSession, explaining, imap_session
from broker.people.login import Login
from broker.people.server import MailServer
from broker.scheduling.replies import Letter, Mark

LIMIT: Final = 120.0  # seconds for one poll
MOST: Final = 50  # mails of one poll; the next one goes on
LARGEST: Final = 8 * 1024 * 1024  # octets of a mail; of a larger one only the headers are fetched
_MOST_OCTETS: Final = 32 * 1024 * 1024  # of one poll
_HEAD: Final = 64 * 1024
_FIRST: Final = timedelta(days=30)  # how far the first poll looks back
_UID: Final = re.compile(rb"\bUID (\d{1,10})\b")
_SIZE: Final = re.compile(rb"\bRFC822\.SIZE (\d{1,12})\b")
_DATE: Final = re.compile(rb'\bINTERNALDATE "([^"]{1,40})"')
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class ImapMailbox(Struct, frozen=True):
    """`scheduling.replies.Mailbox` on an IMAP server."""

    server: MailServer
    login: Login | None
    folder: str = "INBOX"
    move_to: str = ""

    @property
    def name(self) -> str:
        """The mailbox: another one has another mark."""
        return f"{self.login.user if self.login else ''}@{self.server.host}:{self.server.port}/{self.folder}"

    def arrived(self, after: Mark, now: datetime) -> Generator[tuple[Letter | None, Mark], None, None]:
        """Yield the next mails after the mark, fetched as they are read; none is left out, or given twice."""
        after = after if after.mailbox == self.name else Mark(self.name)
        with imap_session(self.server, self.login, LIMIT) as session:
            validity, following = self._opened(session)
            known = after.validity == validity
            since = max(after.at, now - _FIRST) if after.at is not None else now - _FIRST
            wanted = f"UID {after.uid + 1}:*" if known else f"SINCE {_date(since - timedelta(days=1))}"
            # Until a poll has read all, the next one looks back as far, should UIDVALIDITY change in between
            mark = Mark(self.name, validity, after.uid if known else 0, after.at)
            found = sorted(uid for uid in _found(session, wanted) if uid > mark.uid)
            octets = 0
            for uid in found[:MOST]:
                letter = self._fetched(session, uid, now)
                octets += len(letter.data) if letter else 0
                yield letter, replace(mark, uid=uid, at=now if uid == found[-1] else after.at)
                if octets > _MOST_OCTETS:
                    return
            if not found:
                yield None, replace(mark, uid=max(mark.uid, following - 1), at=now)

    def _opened(self, session: ImapSession) -> tuple[int, int]:
        """Open the folder; return UIDVALIDITY, and the UID that the next mail will have (0 if it is not said)."""
        quoted = _quoted(self.folder)
        if session.select(quoted, readonly=not self.move_to)[0] != "OK":
            message = f"{self.server} has no folder {self.folder!r} for {self.login.user if self.login else 'nobody'}"
            raise InputError(message, hint="set folder under [mail.imap]")
        return _number(session, "UIDVALIDITY"), _number(session, "UIDNEXT")

    def _fetched(self, session: ImapSession, uid: int, now: datetime) -> Letter | None:
        """Return a mail, None if it was removed meanwhile."""
        facts, _ = _fetch(session, uid, "(UID RFC822.SIZE INTERNALDATE)")
        if facts is None:
            return None
        size = int(match[1]) if (match := _SIZE.search(facts)) else LARGEST + 1
        date = _DATE.search(facts)
        part, most = ("BODY.PEEK[]", LARGEST) if size <= LARGEST else ("BODY.PEEK[HEADER]", _HEAD)
        _, data = _fetch(session, uid, f"(UID {part}<0.{most}>)")
        received = min(_moment(date[1].decode("ascii", "replace")) or now, now) if date else now
        whole = len(data) if size <= LARGEST else size  # servers count lines' ends in their own way
        put_away = partial(self._put_away, session, uid) if self.move_to else _nothing
        return Letter(uid, received, whole, data, put_away)

    def _put_away(self, session: ImapSession, uid: int) -> None:
        """Move a mail (RFC 6851). Without MOVE on the server it stays: nothing is deleted."""
        with explaining(self.server):
            if b"MOVE" not in session.capability()[1][0].upper().split():  # those after the login
                raise InputError(f"{self.server} cannot move mails", hint="leave move_to out of [mail.imap]")
            status = session.xatom("UID", "MOVE", str(uid), _quoted(self.move_to))[0]
        if status != "OK":
            message = f"{self.server} did not move a mail to {self.move_to!r}"
            raise InputError(message, hint="create the folder, or set move_to under [mail.imap]")


def _nothing() -> None:
    """Leave a mail where it is."""


def _found(session: ImapSession, wanted: str) -> list[int]:
    status, answer = session.uid("SEARCH", wanted)
    if status != "OK":
        raise imaplib.IMAP4.error("the search failed")
    return [int(word) for line in answer if line for word in line.split() if word.isdigit()]


def _fetch(session: ImapSession, uid: int, what: str) -> tuple[bytes | None, bytes]:
    """Return the facts about mail `uid`, None if there is none, and the octets that were asked for."""
    status, answer = session.uid("FETCH", str(uid), what)
    if status != "OK":
        raise imaplib.IMAP4.error("the fetch failed")
    for line in answer:
        facts, octets = line if isinstance(line, tuple) else (line, b"")
        match = _UID.search(facts or b"")
        if match and int(match[1]) == uid:
            return facts, octets
    return None, b""


def _number(session: ImapSession, name: str) -> int:
    _, values = session.response(name)
    return int(values[-1]) if values and values[-1] and values[-1].isdigit() else 0


def _quoted(folder: str) -> str:
    return '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _date(moment: datetime) -> str:
    return f"{moment.day}-{_MONTHS[moment.month - 1]}-{moment.year}"


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text.strip(), "%d-%b-%Y %H:%M:%S %z").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
