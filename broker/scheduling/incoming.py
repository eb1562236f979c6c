"""Read a mail or a file that arrived: who sent it, as it says, what it answers, and what is in it.

Everything here is untrusted. Reading it follows no link, keeps no private key, and takes bounded time and memory.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.model.proposal import LARGEST, LONGEST, Bounce
from broker.pki import mail
from broker.pki.certificate_fields import spki_of
from broker.pki.certificates import pem_of
from broker.pki.material import Reader
from broker.pki.reply import ReplyParts, linked_hosts, parts_found

_HEAD: Final = 64 * 1024  # octets of headers that are read
_MOST_IDS: Final = 50  # that a mail answers
_MOST_BOUNCES: Final = 10
_MOST_TEXT: Final = 64 * 1024  # characters that are searched for names and dates
_MOST_VALUE: Final = 2000  # characters of a header
_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n")
_GLOBAL: Final = re.compile(rb"(?im)^(Content-Type:[ \t]*)message/global(-delivery-status|-headers|)(?=[;\s])")
_OLDER: Final = {
    b"": b"message/rfc822",
    b"-headers": b"text/rfc822-headers",
    b"-delivery-status": b"message/delivery-status",
}
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]{1,250}>")
_SERIAL: Final = re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:?){8,20}(?![0-9A-Fa-f:])")
_EXPIRY: Final = re.compile(r"\bexpir|\bläuft ab\b|\babgelaufen|\bablauf", re.IGNORECASE)
_SPAN: Final = re.compile(
    r"\b(?:valid|available|expires?|download|within)\b[^\d\n]{0,40}\b(\d{1,3})\s*(hour|day|week)s?\b", re.IGNORECASE
)
_DATE: Final = re.compile(r"\b(?:until|by|before|expires?(?: on)?)\W{0,10}(\d{4}-\d\d-\d\d)\b", re.IGNORECASE)
_LONGEST_LINK: Final = timedelta(days=90)


class Incoming(Struct, frozen=True):
    """A mail or a file that arrived. `parts` is None if nothing in it can be imported; `findings` say why."""

    id: str
    source: str
    received: datetime
    sender: str
    subject: str
    message_id: str
    answers: frozenset[str]  # Message-IDs in In-Reply-To and References
    parts: ReplyParts | None
    findings: tuple[Finding, ...]
    hosts: tuple[str, ...]  # of links
    text: str  # with its subject, for names and dates
    is_report: bool = False  # about the delivery of a mail
    bounces: tuple[Bounce, ...] = ()

    @property
    def spkis(self) -> frozenset[Spki]:
        """The public keys of its certificates."""
        return frozenset(spki_of(c) for c in self.parts.certificates) if self.parts else frozenset()

    @property
    def tells_expiry(self) -> bool:
        """Whether its text is about something that expires."""
        return bool(_EXPIRY.search(self.text))

    @property
    def serials(self) -> frozenset[str]:
        """The serial numbers of certificates in its text, as an account's certificates have them."""
        return frozenset(m[0].replace(":", "").lower().lstrip("0") for m in _SERIAL.finditer(self.text))

    @property
    def link_end(self) -> datetime | None:
        """When its links stop working, if the text says so in one of the plain forms; else None."""
        span, date = _SPAN.search(self.text), _DATE.search(self.text)
        end = None
        if span:
            end = self.received + int(span[1]) * timedelta(**{f"{span[2].lower()}s": 1})
        elif date:
            end = _end_of_day(date[1])
        return end if end and self.received < end <= self.received + _LONGEST_LINK else None

    @property
    def material(self) -> str:
        """Its certificates and client_ids as text that reads the same; "" if that is nothing, or too long to keep."""
        if self.parts is None:
            return ""
        ids = "".join(f"client_id: {value}\n" for value in self.parts.client_ids)
        text = ids + "\n" + pem_of(self.parts.certificates)
        return text if len(text) <= LARGEST else ""


def read_mail(data: bytes, received: datetime) -> Incoming:
    """Return what arrived by mail. No error leaves here: what cannot be read is a finding, for a person."""
    written, body = _split(data)
    head = message_from_bytes(written)
    message_id = next(iter(_ids(head, "Message-ID")), "")
    answers = [*_ids(head, "In-Reply-To"), *_ids(head, "References")]
    subject = _value(head, "Subject")
    seen = _read("the mail", data, subject)
    is_report = head.get_content_type() == "multipart/report"
    bounces = tuple(_bounces(data, received, answers))[:_MOST_BOUNCES] if is_report else ()
    return Incoming(
        _digest(message_id.encode(errors="replace"), body),
        "mail",
        received,
        _value(head, "From"),
        subject,
        message_id,
        frozenset(answers),
        *seen,
        is_report,
        bounces,
    )


def read_file(name: str, data: bytes, received: datetime) -> Incoming:
    """Return what a person put into the drop folder. A saved mail answers what its headers name."""
    if mail.is_mail(data):
        found = read_mail(data, received)
        return replace(found, source=_clean(name))
    return Incoming(_digest(b"", data), _clean(name), received, "", "", "", frozenset(), *_read(name, data, ""))


def too_large(head: bytes, size: int, received: datetime) -> Incoming:
    """Return what arrived by a mail of which only the headers were fetched."""
    found = read_mail(head, received)
    message = f"the mail has {size} bytes, and was not fetched"
    finding = Finding.warning("reply.too-large", message, "save its attachments in your mail program")
    return replace(found, findings=(finding,))


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the headers, bounded, and the rest."""
    data = data.lstrip(b"\xef\xbb\xbf\r\n")
    end = _BLANK_LINE.search(data[:_HEAD])
    return (data[: end.start()], data[end.end() :]) if end else (data[:_HEAD], data[_HEAD:])


def _read(name: str, data: bytes, subject: str) -> tuple[ReplyParts | None, tuple[Finding, ...], tuple[str, ...], str]:
    """Return parts, findings, hosts of links and text."""
    found, parts = Reader(), None
    try:
        found.read(name, data)
        parts = parts_found(found)
        findings = parts.findings
    except BrokerError as error:
        findings = (*found.findings, Finding.warning("reply.unreadable", error.message, error.hint))
    text = "\n".join([subject, *found.texts])[:_MOST_TEXT]
    return parts, tuple(dict.fromkeys(findings)), tuple(linked_hosts(found.texts)), text


def _ids(head: Message, name: str) -> list[str]:
    return _MESSAGE_ID.findall(" ".join(map(str, head.get_all(name, [])))[: _MOST_IDS * 300])[:_MOST_IDS]


def _value(head: Message, name: str) -> str:
    """Return the first header `name`, decoded, as a short line that a terminal can show."""
    raw = _raw(head, name)[:_MOST_VALUE]
    try:
        text = str(make_header(decode_header(raw)))
    except (ValueError, LookupError, MessageError, TypeError):  # no such character set, or not its bytes
        text = raw
    return _clean(text)


def _raw(head: Message, name: str) -> str:
    """Return the first header `name` as it arrived, which may be UTF-8 (RFC 6532)."""
    found = next((value for key, value in head.raw_items() if key.lower() == name.lower()), "")
    return str(found).encode(errors="surrogateescape").decode(errors="replace")


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:LONGEST]


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()[:16]


def _end_of_day(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError:
        return None


def _bounces(data: bytes, received: datetime, answers: Sequence[str]) -> Iterator[Bounce]:
    """Yield each recipient that a mail of ours failed to reach (RFC 3464, 2.3), for each mail that it names."""
    try:
        parts = list(mail.parsed(_GLOBAL.sub(_older, data)).walk())[:_MOST_IDS]
    except BrokerError:
        return
    kinds = {part.get_content_type(): part for part in reversed(parts)}
    original = kinds.get("message/rfc822") or kinds.get("text/rfc822-headers")
    named = list(answers)
    if original is not None:
        named = _ids(message_from_bytes(_octets(original)[:_HEAD]), "Message-ID") or named
    report = kinds.get("message/delivery-status")
    fields = report.get_payload() if report is not None and report.is_multipart() else []
    for field in (f for f in fields if isinstance(f, Message)):
        if str(field.get("Action", "")).strip().lower() != "failed":
            continue
        recipient = _clean((_raw(field, "Original-Recipient") or _raw(field, "Final-Recipient")).rpartition(";")[2])
        status = re.match(r"\s*(\d\.\d{1,3}\.\d{1,3})", str(field.get("Status", "")))
        yield from (Bounce(id_, recipient, status[1] if status else "", received) for id_ in dict.fromkeys(named))


def _older(found: re.Match[bytes]) -> bytes:
    """Return a type of RFC 6533 as RFC 3464 calls it; the parser knows no other."""
    return found[1] + _OLDER[found[2].lower()]


def _octets(part: Message) -> bytes:
    """Return a returned mail, or its headers."""
    content = part.get_payload(0) if part.is_multipart() else part.get_payload(decode=True)
    if isinstance(content, Message):
        return "".join(f"{name}: {value}\r\n" for name, value in content.items()).encode(errors="replace") + b"\r\n"
    return content if isinstance(content, bytes) else b""
