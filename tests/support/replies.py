"""Mails of a partner, and an account that waits for one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage

from cryptography import x509

from broker.copies import replace
from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.changes import registering, requesting
from broker.model.finding import Finding
from broker.model.generation import SigningRequest, Submission, key_ref
from broker.model.names import AccountName
from broker.model.proposal import Bounce, Proposal
from broker.model.rotation_record import RotationRecord
from broker.pki.certificate_fields import fingerprint_of
from broker.pki.csr import build
from broker.pki.keys import spki_of
from broker.pki.reply import ReplyParts
from broker.rotation.receive import ImportOptions, Reply, judged
from broker.scheduling.replies import Letter, Mark, Replies
from tests.support import pki
from tests.support.accounts import BY, MZP, STAMP, an_account, promoted

__all__ = ["CAS", "NEW", "OLD", "Desk", "a_mail", "bounce", "waiting_account"]

ROOT = pki.a_ca("Root")
OLD, NEW = pki.a_leaf(ROOT, pki.a_key("first")), pki.a_leaf(ROOT, pki.a_key("second"))
OTHER = pki.a_leaf(ROOT, pki.a_key("other"))
CAS = (ROOT.certificate,)
SENT = "<csr-2@broker.invalid>"  # the Message-ID of the mail with the open request
RECEIVED = pki.NOW + timedelta(hours=1)


_BOUNCE = """\
From: MAILER-DAEMON@mail.example
To: broker@ours.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <bounce@mail.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=cut

--cut
Content-Type: text/plain

It could not be delivered.
--cut
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example

Final-Recipient: rfc822; desk@partner.example
Action: {action}
Status: 5.1.1
Diagnostic-Code: smtp; 550 no such user

--cut
Content-Type: message/rfc822

Message-ID: {message_id}
Subject: Certificate signing request

please sign
--cut--
"""


def waiting_account(name: str = MZP, *, again: bool = True) -> Account:
    """Return an account with a current set whose next request was sent by mail; without `again`, its first one."""
    account = replace(an_account(name), login=pki.LOGIN)
    account = registering.application_set(account, "fleet", "id-fleet", STAMP)
    account = registering.secret_set(account, PASSWORD, 1, STAMP)
    account = _requested(account, 1, "first")
    if not again:
        return _submitted(account, 1)
    accepted = ImportOptions(accept=(fingerprint_of(ROOT.certificate),))
    parts = ReplyParts((OLD, *CAS), (), ())
    account = Reply(parts, accepted, pki.GUIDE).admitted(account, replace(STAMP, at=pki.NOW))
    account = promoted(account, 1, at=pki.NOW)
    return _submitted(_requested(account, 2, "second"), 2)


def _requested(account: Account, number: int, key: str) -> Account:
    secret = pki.secret_of(pki.a_key(key))
    csr = build(secret, pki.GOOD, pki.RULES)
    return requesting.requested(account, SigningRequest(number, key_ref(number), spki_of(secret), csr, pki.NOW), by=BY)


def _submitted(account: Account, number: int) -> Account:
    sent = Submission(pki.NOW, "eml", "desk@partner.example", message_id=SENT)
    return requesting.submitted(account, number, sent, by=BY)


def a_mail(
    *certificates: x509.Certificate, text: str = "", answers: str = SENT, name: str = "reply.pem", **headers: str
) -> bytes:
    """Return a mail with certificates attached."""
    mail = EmailMessage()
    fields = {"From": "Desk <desk@partner.example>", "Subject": "Re: your request", "Message-ID": "<1@partner.example>"}
    fields |= {"In-Reply-To": answers} if answers else {}
    for header, value in (fields | {name.replace("_", "-"): value for name, value in headers.items()}).items():
        mail[header] = value
    mail.set_content(text or "Hello,\n\nyour certificate is attached.\n")
    if certificates:
        content = pki.pem(*certificates).encode()
        mail.add_attachment(content, maintype="application", subtype="x-pem-file", filename=name)
    return mail.as_bytes().replace(b"\n", b"\r\n")


def bounce(message_id: str, action: str = "failed") -> bytes:
    """Return a report about the delivery of a mail, as Postfix writes it."""
    return _BOUNCE.format(action=action, message_id=message_id).replace("\n", "\r\n").encode()


@dataclass
class Desk:
    """The use-cases of replies on records in memory. `imported` are the files that were imported."""

    known: list[Account] = field(default_factory=lambda: [waiting_account()])
    stored: dict[AccountName, RotationRecord] = field(default_factory=dict)
    mark: Mark = field(default_factory=Mark)
    imported: list[AccountName] = field(default_factory=list)
    bounces: list[Bounce] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: datetime = RECEIVED

    @property
    def marks(self) -> _Marks:
        return _Marks(self)

    @property
    def replies(self) -> Replies:
        return Replies(
            records=self,
            accounts=lambda: self.known,
            judge=self._judge,
            receive=lambda name, _: self.imported.append(name),
            link_time=lambda _: timedelta(days=7),
            bounced=self.bounces.append,
            clock=lambda: self.now,
            say=self.said.append,
        )

    def read(self, name: AccountName) -> RotationRecord:
        return self.stored.get(name, RotationRecord())

    def change(self, name: AccountName, change: object) -> RotationRecord:
        self.stored[name] = change(self.read(name))  # type: ignore[operator]
        return self.stored[name]

    def proposals(self, name: AccountName = MZP) -> tuple[Proposal, ...]:
        return self.read(name).proposals

    def mailed(self, *mails: bytes, first: int = 1, size: int = 0) -> list[Proposal]:
        """Poll a mailbox with these mails; return what the account waits with then."""
        letters = [Letter(first + n, RECEIVED, size or len(mail), mail) for n, mail in enumerate(mails)]
        box = _Box(letters)
        self.replies.read_mailbox(box, self.marks)
        return list(self.proposals())

    def _judge(self, account: Account, parts: ReplyParts, typed: str) -> tuple[Finding, ...]:
        return judged(account, parts, ImportOptions(typed=typed), pki.GUIDE, replace(STAMP, at=self.now))


@dataclass
class _Box:
    letters: list[Letter]

    def arrived(self, after: Mark, _: datetime) -> Generator[tuple[Letter | None, Mark], None, None]:
        for letter in self.letters:
            if letter.uid > after.uid:
                yield letter, Mark("box", 1, letter.uid)


@dataclass
class _Marks:
    desk: Desk

    def read(self) -> Mark:
        return self.desk.mark

    def advance(self, mark: Mark) -> None:
        self.desk.mark = mark
