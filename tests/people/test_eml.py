"""The draft of a mail with a CSR: the same bytes each time, and no injected header."""

from __future__ import annotations

import email
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest

from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.account import Account
from broker.model.changes import compromising
from broker.model.generation import Submission as Submitted
from broker.model.names import AccountName
from broker.partners.catalogue import builtin
from broker.partners.profile import Submission
from broker.people.eml import CsrMail, csr_mail, draft, reminder
from tests.support.accounts import NOW, STAMP, a_request, an_account, later, with_current, with_open_request

CSR = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
SUBMISSION = builtin("stellantis").submission
MAIL = CsrMail(
    account=AccountName("mzp-1"),
    number=3,
    csr=CSR,
    sender="fleet@example.com",
    to=("pki@partner.example", "second@partner.example"),
    date=datetime(2026, 11, 24, 12, 0, tzinfo=UTC),
    texts={"login": "MZP0000042", "environment": "production", "subject": "C=FR, O=Société — Exemple"},
)


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_mail_program_reads_it() -> None:
    message = parsed(draft(MAIL, SUBMISSION))
    assert message.defects == []
    assert message["From"] == "fleet@example.com"
    assert message["To"] == "pki@partner.example, second@partner.example"
    assert message["Subject"] == "Certificate signing request for MZP0000042"
    assert message["Date"] == "Tue, 24 Nov 2026 12:00:00 +0000"
    assert message["X-Unsent"] == "1"
    body = message.get_body()
    assert body is not None
    assert "Société — Exemple" in body.get_content()
    (attachment,) = message.iter_attachments()
    assert attachment.get_filename() == "mzp-1-3.csr"
    assert attachment.get_content_type() == "application/pkcs10"
    assert attachment.get_content() == CSR.encode()


def test_recipients_in_order_of_preference() -> None:
    account, profile = an_account(), builtin("stellantis")
    request = a_request(account)
    desk = replace(profile, submission=replace(SUBMISSION, to="pki@partner.example"))
    bare = replace(account, contacts=replace(account.contacts, partner=()))

    def receivers(account: Account, *to: str) -> tuple[str, ...]:
        return csr_mail(account, request, desk, to, NOW).to

    assert receivers(account, "me@x.example") == ("me@x.example",)
    assert receivers(account) == ("desk@partner.test",)
    assert receivers(bare) == ("pki@partner.example",)
    assert csr_mail(bare, request, profile, (), NOW).to == ()


@pytest.mark.parametrize(
    ("language", "said"),
    [("", "we have no answer yet"), ("fr", "nous n'avons pas encore de réponse"), ("de", "we have no answer yet")],
)
def test_a_reminder_in_the_contacts_language(language: str, said: str) -> None:
    """A language that the profile lost gets the profile's own."""
    waiting = with_open_request(with_current())
    assert waiting.open_request
    assert waiting.current
    ends = waiting.certificate(waiting.current.parts.certificate).not_after
    sent = replace(waiting.open_request, submissions=(Submitted(NOW, "smtp"),))
    account = replace(waiting, requests=(*waiting.requests[:-1], sent), language=language)
    found = reminder(account, builtin("stellantis"))
    assert f"{NOW:%F}" in found.body
    assert said in found.body
    assert found.body.endswith(".\n")
    assert f"{ends:%F %H:%M} UTC" in found.body
    first = replace(account, generations=())
    assert found.body.startswith(reminder(first, builtin("stellantis")).body)
    with pytest.raises(RefusedError, match="waits for no answer"):
        reminder(replace(account, requests=waiting.requests), builtin("stellantis"))


def test_a_known_key_must_be_revoked() -> None:
    account, profile = with_open_request(with_current()), builtin("stellantis")
    request = account.open_request
    assert request
    before = csr_mail(account, request, profile, (), NOW)
    known = compromising.compromised(account, "stolen", STAMP, suspend=False)
    urgent = csr_mail(known, request, profile, (), NOW)
    body = parsed(draft(urgent, profile.submission)).get_body()
    assert body is not None
    assert body.get_content().startswith("URGENT: the private key of our certificate with serial number 01 is known")
    assert "please sign the attached" in body.get_content()
    assert "URGENT" not in parsed(draft(before, profile.submission)).as_string()
    assert urgent.message_id != before.message_id, "it is another mail, though the CSR is the same"
    sent = replace(request, submissions=(Submitted(later(days=1), "eml", message_id=before.message_id),))
    assert csr_mail(known, sent, profile, (), later(days=3)).date == later(days=3)


def test_resend_has_the_first_mails_date() -> None:
    account, profile = an_account(), builtin("stellantis")
    id_ = csr_mail(account, a_request(account), profile, (), NOW).message_id
    mail = Submitted(later(days=1), "eml", message_id=id_)
    sent = replace(a_request(account), submissions=(Submitted(NOW, "hand"), mail))
    again = csr_mail(account, sent, profile, (), later(days=5))
    assert again.date == later(days=1)
    assert again.message_id == csr_mail(account, a_request(account), profile, (), NOW).message_id
    assert again.sender == "ops@example.test"


def test_the_same_input_makes_the_same_bytes() -> None:
    assert draft(MAIL, SUBMISSION) == draft(replace(MAIL), SUBMISSION)


def test_letters_of_every_script_in_addresses() -> None:
    """A domain is written in ASCII, and then so is all of the mail; a name has no other form."""
    content = draft(replace(MAIL, to=("desk@Példa.example",)), SUBMISSION)
    assert parsed(content)["To"] == "desk@xn--plda-bpa.example"
    content.decode("ascii")
    content = draft(replace(MAIL, to=("büro@példa.example", "pki@partner.example")), SUBMISSION)
    assert "To: büro@xn--plda-bpa.example, pki@partner.example\r\n" in content.decode()
    assert b"\r\n\r\n" in content
    content.partition(b"\r\n\r\n")[2].decode("ascii")


def test_lines_are_short_and_end_in_crlf() -> None:
    content = draft(MAIL, SUBMISSION)
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    assert max(map(len, content.split(b"\r\n"))) <= 998
    content.decode("ascii")


def test_long_subject_with_accents_survives() -> None:
    submission = replace(SUBMISSION, subject="Demande de signature — " + "é" * 300)
    assert parsed(draft(MAIL, submission))["Subject"] == submission.subject


def test_message_id_depends_on_the_request() -> None:
    assert MAIL.message_id == replace(MAIL, to=()).message_id
    assert MAIL.message_id != replace(MAIL, number=4).message_id
    assert MAIL.message_id != replace(MAIL, csr=CSR.lower()).message_id
    assert parsed(draft(MAIL, SUBMISSION))["Message-ID"] == MAIL.message_id


@pytest.mark.parametrize(
    "change",
    [
        {"to": ()},
        {"to": ("pki@partner.example\r\nBcc: x@evil.example",)},
        {"to": ("pki@partner.example\nBcc: x@evil.example",)},
        {"to": ("pki@partner.example, x@evil.example",)},
        {"to": ("<pki@partner.example>",)},
        {"to": ("nobody",)},
        {"to": ("@partner.example",)},
        {"to": ("a@b@c",)},
        {"to": ("",)},
        {"to": ("pki@p_ï.example",)},
        {"to": (f"{'x' * 2000}@partner.example",)},
        {"sender": "fleet@example.com\r\nBcc: x@evil.example"},
        {"sender": ""},
        {"texts": {"login": "MZP\r\nBcc: x@evil.example", "environment": "e", "subject": "s"}},
        {"texts": {"login": "MZP\u2028x", "environment": "e", "subject": "s"}},
        {"texts": {"login": "x" * 2000, "environment": "e", "subject": "s"}},
        {"texts": {}},
    ],
)
def test_header_injection_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        draft(replace(MAIL, **change), SUBMISSION)
    assert caught.value.hint


def test_a_body_cannot_break_out_of_its_part() -> None:
    boundary = parsed(draft(MAIL, SUBMISSION)).get_boundary()
    texts = dict(MAIL.texts) | {"subject": f"\r\n--{boundary}\r\nContent-Type: text/html\r\n\r\n<b>"}
    message = parsed(draft(replace(MAIL, texts=texts), SUBMISSION))
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "application/pkcs10"]


def test_template_reads_no_attribute() -> None:
    submission = Submission(body="$login.__class__ {login.__class__} %(login)s\n")
    body = parsed(draft(MAIL, submission)).get_body()
    assert body is not None
    assert body.get_content().strip() == "MZP0000042.__class__ {login.__class__} %(login)s"
