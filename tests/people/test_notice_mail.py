"""Letters as mails, calendar entries and JSON."""

from __future__ import annotations

import email
import email.policy
import json
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Final

import icalendar
import jsonschema  # type: ignore[import-untyped]
import pytest

from broker.copies import replace
from broker.errors import InputError
from broker.model.letter import Item, Letter, LetterKind
from broker.model.names import AccountName
from broker.model.notice import Notice, Reminder
from broker.model.recipient import Entry
from broker.people.calendar import calendar
from broker.people.notice_json import body
from broker.people.notice_mail import mail
from tests.support.sources import ROOT

NOW: Final = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
END: Final = datetime(2051, 3, 15, 23, 59, 59, tzinfo=UTC)
SENDER: Final = "broker@acme.example"
NOTICE: Final = Notice(
    "overdue-r4s.14d",
    "0123456789abcdef01234567",
    NOW,
    True,
    "signing request 4 was sent 22 days ago, stuck: longer than its lead time of 21d",
    "broker csr submit acme --to second.contact@partner.example; then: broker cert import acme FILE",
    END,
    ("acme/billing", "acme/reporting", "batch-7", "web-2"),
    "the certificate for signing request 4, which is not there yet",
    reminder=Reminder("Re: request for MZP123", "Hello,\n\nyour answer about MZP123 is missing.\n"),
)


def letter(kind: LetterKind = LetterKind.ALERT, *notices: Notice, account: str = "acme") -> Letter:
    items = tuple(Item(AccountName(account), notice) for notice in notices or (NOTICE,))
    return Letter(kind, "ops@acme.example", "abc.123", NOW, () if kind is LetterKind.TEST else items)


def parsed(one: Letter) -> EmailMessage:
    read = email.message_from_bytes(mail(one, SENDER).as_bytes(), policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    return read


def text(one: Letter) -> str:
    part = parsed(one).get_body(("plain",))
    assert part
    return str(part.get_content()).replace("\r\n", "\n")


def entries(one: Letter) -> list[icalendar.Component]:
    return list(icalendar.Calendar.from_ical(calendar(one, SENDER)).walk("VEVENT"))


def test_an_alert_says_what_to_type() -> None:
    found = text(letter())
    assert "\n  broker csr submit acme --to second.contact@partner.example\n" in found
    assert "Used by      acme/billing, acme/reporting, batch-7, web-2" in found
    assert "Replaced by  the certificate for signing request 4" in found
    assert "Ends         2051-03-15 23:59 UTC" in found
    assert "acme.overdue-r4s.14d" in found


@pytest.mark.parametrize("kind", LetterKind)
def test_lines_are_short(kind: LetterKind) -> None:
    lines = text(letter(kind, NOTICE, replace(NOTICE, event="due-g3.begin"))).splitlines()
    assert all(len(line) <= 72 for line in lines if not line.startswith("  broker "))


@pytest.mark.parametrize("kind", LetterKind)
def test_the_same_letter_has_the_same_bytes(kind: LetterKind) -> None:
    assert mail(letter(kind), SENDER).as_bytes() == mail(letter(kind), SENDER).as_bytes()
    found = parsed(letter(kind))
    assert found["Message-ID"] == "<abc.123@credential-broker.invalid>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Date"].datetime == NOW


def test_the_partner_learns_nothing_of_ours() -> None:
    """No command, no consumer, no name of an account."""
    found = text(letter(LetterKind.REMINDER))
    assert "MZP123" in found
    assert not [word for word in ("broker", "batch-7", "acme", "stuck") if word in found]
    assert not list(parsed(letter(LetterKind.REMINDER)).iter_attachments())


def test_a_digest_has_all_accounts() -> None:
    items = tuple(Item(AccountName(f"acme-{n}"), NOTICE) for n in range(40))
    one = replace(letter(LetterKind.DIGEST), items=items)
    assert text(one).count("\nNext:\n") == 40
    assert len(parsed(one)["Subject"]) <= 120
    assert len({event["UID"] for event in entries(one)}) == 40


@pytest.mark.parametrize(
    "hostile",
    ["x\r\nBcc: evil@x.example", "x\nSubject: y\n\nbody", "\x1b[31mred\x07", "a\u2028b\x00c", "=?utf-8?q?x?="],
)
def test_hostile_texts_add_no_header(hostile: str) -> None:
    """A document that an attacker wrote cannot make a mail to somebody else."""
    notice = replace(NOTICE, message=hostile, hint=hostile, uses=(hostile,), replaced_by=hostile)
    notice = replace(notice, event=f"{hostile}.7d", reminder=Reminder(hostile, hostile))
    for kind in LetterKind:
        found = parsed(letter(kind, notice))
        assert found["To"] == "ops@acme.example"
        assert found["Bcc"] is None
        assert len(found.get_all("Subject", [])) == 1
        assert "\x1b" not in str(found["Subject"]) + text(letter(kind, notice))
    assert len(entries(letter(LetterKind.ALERT, notice))) == 1
    assert calendar(letter(LetterKind.ALERT, notice), SENDER).count(b"\r\nSUMMARY") == 1


@pytest.mark.parametrize("to", ["ops@acme.example\r\nBcc: x@y.example", "Ops <ops@acme.example>, x@y.example", ""])
def test_a_hostile_address_is_refused(to: str) -> None:
    with pytest.raises(InputError, match="is not one mail address"):
        mail(replace(letter(), to=to), SENDER)


def test_a_calendar_replaces_its_entry() -> None:
    """One UID for an account and step; a later rung counts more, also after 2038."""
    later = replace(NOTICE, event="overdue-r4s.7d", at=NOW + timedelta(days=365 * 40))
    [first], [second] = entries(letter()), entries(letter(LetterKind.ALERT, later))
    assert first["UID"] == second["UID"]
    assert int(first.decoded("SEQUENCE")) < int(second.decoded("SEQUENCE")) < 2**31
    assert first.decoded("DTSTART") == END


def test_a_digest_withdraws_an_entry() -> None:
    """A file of its own, since a calendar has one METHOD; UID and ORGANIZER are those of the entry."""
    over = Entry(AccountName("acme"), NOTICE.step, int(entries(letter())[0].decoded("SEQUENCE")) + 1, over=True)
    one = replace(letter(LetterKind.DIGEST, replace(NOTICE, event="retiring-g1.begin")), withdrawn=(over,))
    files = {part.get_filename(): part.get_content() for part in parsed(one).iter_attachments()}
    assert set(files) == {"certificate.ics", "withdrawn.ics"}
    found = icalendar.Calendar.from_ical(files["withdrawn.ics"])
    [event], [entry] = found.walk("VEVENT"), entries(letter())
    assert (found["METHOD"], event["STATUS"]) == ("CANCEL", "CANCELLED")
    assert (event["UID"], event["ORGANIZER"]) == (entry["UID"], entry["ORGANIZER"])
    assert int(event.decoded("SEQUENCE")) > int(entry.decoded("SEQUENCE"))
    assert "Over: acme.overdue-r4s." in text(one)


def test_a_calendar_is_folded_and_escaped() -> None:
    notice = replace(NOTICE, message="é,;\\ " * 40, hint="a\nb")
    raw = calendar(letter(LetterKind.ALERT, notice), SENDER)
    assert all(len(line) <= 75 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    [event] = entries(letter(LetterKind.ALERT, notice))
    assert str(event["DESCRIPTION"]) == "é,;\\ " * 40 + "\nNext: a\nb"


def test_no_certificate_means_no_calendar() -> None:
    assert calendar(letter(LetterKind.ALERT, replace(NOTICE, expires_at=None)), SENDER) == b""


@pytest.mark.parametrize("kind", LetterKind)
def test_json_fits_its_schema(kind: LetterKind) -> None:
    schema = json.loads((ROOT / "docs" / "reference" / "webhook.json").read_text())
    jsonschema.validate(json.loads(json.dumps(body(letter(kind)))), schema)


def test_json_has_all_of_it() -> None:
    found = json.loads(json.dumps(body(letter())))
    assert found["kind"] == "alert"
    assert found["id"] == "abc.123"
    [event] = found["events"]
    assert event["id"] == "acme.overdue-r4s.14d"
    assert event["must_act"] is True
    assert event["expires_at"] == "2051-03-15T23:59:59Z"
    assert "broker csr submit acme" in found["text"]
