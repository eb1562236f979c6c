"""The mail that submits a CSR to the partner, as a draft that a mail program opens and a person sends.

The same input makes the same bytes: Message-ID and date come from the caller, and nothing is random, so that a resent
mail is recognised.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from string import Template
from typing import Final

from msgspec import Struct

from broker.addresses import new_mail
from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.account import Account
from broker.model.finding import Finding, Severity
from broker.model.generation import SigningRequest
from broker.model.names import AccountName
from broker.model.notice import Reminder
from broker.partners.profile import MailText, Profile

_DOMAIN: Final = "credential-broker.invalid"
_ACCEPT: Final = "--accept-ca"  # in the hint of a finding that a person here decides about
_LONGEST: Final = 998  # octets of a header line (RFC 5322, 2.1.1)


class CsrMail(Struct, frozen=True):
    """The parts of the mail. `texts` fill the profile's templates: login, environment, subject and so on."""

    account: AccountName
    number: int  # of the signing request
    csr: str  # PEM
    sender: str
    to: tuple[str, ...]
    date: datetime
    texts: Mapping[str, str]
    urgent: bool = False  # others know the key of the certificate that it replaces, which must be revoked
    copy_to: tuple[str, ...] = ()  # recipients of another mail with the same CSR, which has its own Message-ID

    @property
    def message_id(self) -> str:
        """The Message-ID: the same for each mail with this CSR and text. The domain has no mailbox."""
        digest = _digest(f"{self.csr}{'urgent' if self.urgent else ''}{','.join(self.copy_to)}")
        return f"<csr-{self.account}-{self.number}-{digest}@{_DOMAIN}>"


def csr_mail(account: Account, request: SigningRequest, profile: Profile, to: Sequence[str], now: datetime) -> CsrMail:
    """Return the mail that asks to sign `request`, to `to`, else the account's contacts, else the profile's.

    Date and Message-ID stay those of the first such mail. While others know a key of the account, it asks to revoke the
    certificate of that key too.
    """
    recipients = tuple(to) or account.contacts.partner or ((profile.submission.to,) if profile.submission.to else ())
    sender = account.subject.get("emailAddress") or next(iter(account.contacts.team), "")
    urgent, texts = account.compromised is not None, _texts(account, profile)
    mail = CsrMail(account.name, request.number, request.csr, sender, recipients, now, texts, urgent)
    return replace(mail, date=next((s.at for s in request.submissions if s.message_id == mail.message_id), now))


def _texts(account: Account, profile: Profile) -> dict[str, str]:
    """Return the values of placeholders."""
    texts = {name: str(getattr(account, name)) for name in ("environment", "login", "subject")}
    return {**texts, "account": account.name, "partner": profile.title, "serial": ", ".join(_serials(account))}


def _serials(account: Account) -> list[str]:
    """Return the serial numbers of the certificates with the key that others know, else of the current one."""
    shown = account.compromised or account.current
    refs = {g.parts.certificate for g in account.generations if shown and g.parts.key == shown.parts.key}
    return sorted(account.certificate(ref).serial for ref in refs)


def draft(mail: CsrMail, text: MailText) -> bytes:
    """Return the mail for a person who sends it: as `written`, and marked as unsent."""
    message = _message(mail, text)
    message["X-Unsent"] = "1"  # some mail programs then open the file for sending
    return message.as_bytes()


def written(mail: CsrMail, text: MailText) -> bytes:
    """Return the mail as RFC 5322 text with CRLF, the CSR attached as `<account>-<n>.csr`.

    Raise `InputError` for an address or a subject that is no valid header.
    """
    return _message(mail, text).as_bytes()


def _message(mail: CsrMail, text: MailText) -> EmailMessage:
    message = _begun(mail, text.subject)
    message["Message-ID"] = mail.message_id
    body = f"{text.revoke if mail.urgent else ''}{text.body}"
    message.set_content(_filled(body, mail.texts), cte="quoted-printable")
    name = f"{mail.account}-{mail.number}.csr"
    message.add_attachment(mail.csr.encode("ascii"), maintype="application", subtype="pkcs10", filename=name)
    # The default boundary is random; this one cannot occur in base64 or quoted-printable text.
    message.set_boundary("=_" + hashlib.sha256(mail.message_id.encode()).hexdigest()[:32])
    return message


def refusal(mail: CsrMail, text: MailText, findings: Iterable[Finding], answered: str = "") -> bytes:
    """Return a draft of the mail that tells the contact what is wrong with a reply.

    It answers the request's mail, whose Message-ID is `answered`.

    Its Message-ID is the same for the same text.
    """
    lines = "\n".join(dict.fromkeys(f"- {text.findings.get(f.code) or _plain(f)}" for f in findings))
    body = _filled(text.refusal, {**mail.texts, "findings": lines})
    message = _begun(mail, f"Re: {text.subject}")
    message["Message-ID"] = f"<refusal-{mail.account}-{mail.number}-{_digest(body)}@{_DOMAIN}>"
    message["In-Reply-To"] = message["References"] = answered or mail.message_id
    message["X-Unsent"] = "1"
    message.set_content(body, cte="quoted-printable")
    return message.as_bytes()


def reminder(account: Account, profile: Profile) -> Reminder:
    """Return the reminder of the open request, in the account's language if the profile has it, else in the profile's.

    Its subject is that of an answer to the request's mail.
    """
    request, current = account.open_request, account.current
    if request is None or not request.submissions:
        raise RefusedError(f"{account.name} waits for no answer")
    language = account.language if account.language in profile.submission.texts else ""
    text, texts = profile.submission.text(language), _texts(account, profile)
    body = _filled(text.reminder, {**texts, "sent": f"{request.submissions[0].at:%F}"})
    if current:
        ends = account.certificate(current.parts.certificate).not_after
        body += _filled(text.deadline, {**texts, "ends": f"{ends:%F %H:%M} UTC"})
    return Reminder(f"Re: {_line(_filled(text.subject, texts))}", body)


def for_contact(findings: Iterable[Finding]) -> list[Finding]:
    """Return the errors that the partner can correct; a CA that we have not accepted yet is our own decision."""
    errors = [f for f in findings if f.severity is Severity.ERROR]
    return [f for f in errors if f.code.startswith("certificate.") or (f.code == "reply.ca" and _ACCEPT not in f.hint)]


def _plain(finding: Finding) -> str:
    """Return the message; those about the certificate begin with "it"."""
    subject, rest = "the certificate", finding.message
    return f"{subject} {rest.removeprefix('it ')}" if rest.startswith("it ") else rest


def _begun(mail: CsrMail, subject: str) -> EmailMessage:
    if not mail.to:
        raise InputError(
            "the CSR has no recipient",
            hint=f"broker account set {mail.account} --contact ADDRESS, or --to ADDRESS for this mail",
        )
    message = new_mail(mail.sender, *mail.to)
    message["Subject"] = _line(_filled(subject, mail.texts))
    message["Date"] = format_datetime(mail.date)
    return message


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def new_message_id() -> str:
    """Return a Message-ID that no other mail has. The domain has no mailbox."""
    return f"<{secrets.token_hex(16)}@{_DOMAIN}>"


def _filled(template: str, texts: Mapping[str, str]) -> str:
    try:
        return Template(template).substitute(texts)
    except (KeyError, ValueError):
        raise InputError(
            "the profile's mail has an unknown placeholder",
            hint="correct [submission] in the profile, and add it again: broker partner add FILE",
        ) from None


def _line(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST - 100:
        raise InputError("the mail's subject is too long, or has a line break", hint="use a single line")
    return text
