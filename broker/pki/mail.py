"""Read mails and mailboxes as mail programs save them: bodies as text, attachments as files. No link is followed."""

import html
import re
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from email.message import Message
from typing import Final

from broker.errors import InputError, RefusedError
from broker.pki.client_ids import is_headers
from broker.pki.pem import text_of

_MOST_PARTS: Final = 256
_MOST_NESTED: Final = 24  # multiparts and forwarded mails
_LONG_HEADER: Final = re.compile(rb"^content-[a-z-]{1,40}:(?:[^\n]|\n[ \t]){8000}", re.IGNORECASE | re.MULTILINE)
_MOST_TAGS: Final = 100_000
_SAVE: Final = "save its attachments, and give those"
_HEAD: Final = 64 * 1024  # bytes
_BLANK_LINE: Final = re.compile(r"\r?\n[ \t]*\r?\n")
_FROM_LINE: Final = re.compile(rb"^From [^\r\n]{1,200}\d\d:\d\d[^\r\n]{0,60}\r?\n", re.MULTILINE)  # of an mbox
_SIGNATURES: Final = ("application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature")
_TAG: Final = re.compile(r"/?([a-z0-9]+)", re.IGNORECASE)
_HIDDEN: Final = ("script", "style")
_INLINE: Final = ("a", "b", "code", "em", "font", "i", "span", "strong", "tt", "u", "wbr")
_LINK: Final = re.compile(r"https?://[^\s\"'<>]{1,500}")


def is_mail(data: bytes) -> bool:
    """Return whether `data` begins with the headers of a mail, or with a mailbox's first line."""
    if _FROM_LINE.match(data):
        return True
    head = data[:_HEAD].decode("latin-1").lstrip("\ufeff\xef\xbb\xbf\r\n")
    return ":" in head[:200] and is_headers(_BLANK_LINE.split(head, 1)[0].replace("\r\n", "\n"))


def parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each body and attachment. Raises `InputError`, or `RefusedError` for too many."""
    # All that the parser raises for hostile headers; the deepest nesting is a recursion of its own.
    try:
        mails = _FROM_LINE.split(data) if _FROM_LINE.match(data) else [data]
        yield from _leaves([_parsed(one) for one in mails if one.strip()])
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise InputError("the mail cannot be read: it is damaged", hint=_SAVE) from error


def parsed(data: bytes) -> Message:
    """Return the mail in `data` with its parts; raise `InputError` or `RefusedError` for one that takes too long."""
    try:
        return _parsed(data)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise InputError("the mail cannot be read: it is damaged", hint=_SAVE) from error


def without_tags(text: str) -> str:
    """Return the text of HTML, with the addresses of its links, and without its scripts."""
    if text.count("<") > _MOST_TAGS:
        return text
    first, *pieces = text.split("<")
    found, hidden = [first], False
    for piece in pieces:
        tag, closed, after = piece.partition(">")
        name = match[1].lower() if (match := _TAG.match(tag)) else ""
        if name in _HIDDEN:
            hidden = not tag.startswith("/")
        if not hidden:
            links = " ".join(_LINK.findall(tag)) if name == "a" else ""
            between = "" if name in _INLINE else "\n"
            found.append(f"{between}{links}{after}" if closed and name else f"<{piece}")
    return html.unescape("".join(found))


def links_in(text: str) -> list[str]:
    """Return the links in `text`, in order."""
    return _LINK.findall(text)


def _parsed(data: bytes) -> Message:
    lowered = data.lower()
    nested = lowered.count(b"multipart/") + lowered.count(b"message/rfc822")
    if nested > _MOST_NESTED:  # the parser takes that many times as long
        raise RefusedError(f"the mail has {nested} parts with parts of their own", hint=_SAVE)
    if _LONG_HEADER.search(data):  # of that length squared
        raise InputError("the mail has a header that is too long", hint=_SAVE)
    return message_from_bytes(data.lstrip(b"\xef\xbb\xbf\r\n"))


def _leaves(mails: Iterable[Message]) -> Iterator[tuple[str, bytes]]:
    for number, part in enumerate(part for mail in mails for part in mail.walk()):
        if number >= _MOST_PARTS:
            raise RefusedError(f"the mail has more than {_MOST_PARTS} parts", hint=_SAVE)
        if not part.is_multipart() and part.get_content_type() not in _SIGNATURES:
            yield part.get_filename() or "the text of the mail", _content(part)


def _content(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    octets = content if isinstance(content, bytes) else b""
    if part.get_content_maintype() != "text":
        return octets
    try:
        text = octets.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # no such character set
        text = text_of(octets)
    return (without_tags(text) if part.get_content_subtype() == "html" else text).encode(errors="replace")
