"""The mail that carries a CSR to the partner's people, as a draft that a mail program opens and a person sends.

The same input makes the same bytes: Message-ID and date come from the caller, and nothing is random, so a resend is
the same mail.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from string import Template
from typing import Final

from broker.errors import InputError
from broker.model.names import AccountName
from broker.partners.profile import Submission

__all__ = ["CsrMail", "draft", "message_id", "write"]

_LONGEST: Final = 998  # octets of a header line (RFC 5322, 2.1.1)


@dataclass(frozen=True, slots=True)
class CsrMail:
    """All that makes the mail. `texts` fill the profile's templates: login, environment, subject and so on."""

    account: AccountName
    number: int  # of the signing request
    csr: str  # PEM
    sender: str
    to: tuple[str, ...]
    message_id: str  # as `message_id` makes it
    date: datetime
    texts: Mapping[str, str]


def message_id(account: AccountName, number: int, csr: str, domain: str = "credential-broker.invalid") -> str:
    """Return the Message-ID of this CSR's mail: always the same one. The domain says that nobody answers there."""
    digest = hashlib.sha256(csr.encode()).hexdigest()[:16]
    return _checked_id(f"<csr-{account}-{number}-{digest}@{domain}>")


def draft(mail: CsrMail, submission: Submission) -> bytes:
    """Return the mail as RFC 5322 text with CRLF, the CSR attached as `<account>-<n>.csr`, marked as unsent.

    Raise `InputError` for an address, a subject or an ID that could not be a header, or would begin another one.
    """
    if not mail.to:
        raise InputError("nobody is named to send the CSR to", hint=f"broker csr submit {mail.account} --to ADDRESS")
    message = EmailMessage(policy=SMTP)
    message["From"] = _address("from", mail.sender)
    message["To"] = tuple(_address("to", to) for to in mail.to)
    message["Subject"] = _line("subject", _filled(submission.subject, mail.texts))
    message["Date"] = format_datetime(mail.date)
    message["Message-ID"] = _checked_id(mail.message_id)
    message["X-Unsent"] = "1"  # mail programs that know it open the file for sending
    message.set_content(_filled(submission.body, mail.texts), cte="quoted-printable")
    message.add_attachment(
        mail.csr.encode("ascii"),
        maintype="application",
        subtype="pkcs10",
        filename=f"{mail.account}-{mail.number}.csr",
    )
    # The parts' boundary would be random; this one cannot occur in base64 or quoted-printable text.
    message.set_boundary("=_" + hashlib.sha256(mail.message_id.encode()).hexdigest()[:32])
    return message.as_bytes()


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all, in place of what is there. Raise `InputError`."""
    try:
        descriptor, working = tempfile.mkstemp(prefix=f".{path.name[:80]}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o644)  # a CSR is public
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(working).replace(path)
        except BaseException:
            Path(working).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {(error.strerror or 'it is refused').lower()}", hint="name another file"
        ) from None


def _filled(template: str, texts: Mapping[str, str]) -> str:
    try:
        return Template(template).substitute(texts)
    except (KeyError, ValueError):
        raise InputError("the profile's mail has a name that nothing fills", hint="broker partner show") from None


def _line(name: str, text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST - 100:
        raise InputError(f"the mail's {name} is too long, or has a line break", hint="write it on one line")
    return text


def _address(name: str, text: str) -> Address:
    local, _, domain = _line(name, text).rpartition("@")
    if not local or not domain or not text.isascii() or any(c in text for c in ' ,;:<>()[]"\\') or "@" in local:
        raise InputError(f"{text[:80]!r} is not a mail address ({name})", hint="write one like pki@example.com")
    return Address(addr_spec=text)


def _checked_id(text: str) -> str:
    inner = text.removeprefix("<").removesuffix(">")
    left, _, right = inner.partition("@")
    allowed = all(c.isascii() and (c.isalnum() or c in ".-_") for c in left + right)
    if text != f"<{inner}>" or not (left and right) or not allowed:
        raise InputError("the Message-ID is not one", hint="it looks like <csr-1@example.com>")
    return text
