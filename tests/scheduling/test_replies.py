"""Mails become proposals of the account that they are about, and change nothing else."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from broker.copies import replace
from broker.errors import DeniedError, RefusedError
from broker.model.certificate import Spki
from broker.model.finding import has_errors
from broker.model.generation import Closed
from broker.model.names import AccountName
from broker.model.proposal import Arrival, Outcome
from broker.pki.reply import read_reply
from broker.scheduling.replies import Dropped
from tests.support import pki
from tests.support.accounts import MZP
from tests.support.replies import CAS, NEW, OLD, OTHER, RECEIVED, SENT, Desk, a_mail, bounce, waiting_account


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_reply_is_proposed_never_imported(desk: Desk) -> None:
    before = list(desk.known)
    (one,) = desk.mailed(a_mail(NEW, *CAS, text="client_id: 1eebc2d5-5df3-459b-a624-20abfcf82530"))
    assert (one.kind, one.request, one.sender) == (Arrival.REPLY, 2, "Desk <desk@partner.example>")
    assert not has_errors(one.findings)
    parts = read_reply(one.material.encode())
    assert parts.certificates == (NEW, *CAS)
    assert parts.client_ids == ("1eebc2d5-5df3-459b-a624-20abfcf82530",)
    assert desk.known == before
    assert not desk.imported


def test_first_reply_asks_about_its_ca() -> None:
    (one,) = Desk([waiting_account(again=False)]).mailed(a_mail(OLD, *CAS))
    (question,) = [f for f in one.findings if f.code == "reply.ca"]
    assert f"broker cert import mzp-1 --reply mzp-1/{one.id} --accept-ca" in question.hint


def test_a_key_decides_before_a_message_id(desk: Desk) -> None:
    other = waiting_account("other")
    requests = tuple(replace(r, spki=Spki(f"{r.number:064}")) for r in other.requests)
    desk.known.insert(0, replace(other, requests=requests))
    (one,) = desk.mailed(a_mail(NEW, answers="<unknown@partner.example>"))
    assert one.request == 2
    assert not desk.proposals(other.name)


def test_wrong_certificate_in_an_answer(desk: Desk) -> None:
    (one,) = desk.mailed(a_mail(OTHER, *CAS))
    assert (one.kind, one.request) == (Arrival.REPLY, 2)
    assert any("no certificate for the key of this request" in f.message for f in one.findings)


def test_reply_to_a_superseded_request(desk: Desk) -> None:
    account = desk.known[0]
    requests = [
        replace(r, closed=Closed.SUPERSEDED, closed_at=pki.NOW) if r.number == 2 else r for r in account.requests
    ]
    desk.known[0] = replace(account, requests=tuple(requests))
    (one,) = desk.mailed(a_mail(NEW, *CAS))
    assert any("request 2 of mzp-1, which was superseded" in f.message for f in one.findings)


def test_replies_that_differ_name_each_other(desk: Desk) -> None:
    renewed = pki.a_leaf(pki.a_ca("Root"), pki.a_key("second"), not_after=RECEIVED + timedelta(days=9))
    (one,) = desk.mailed(a_mail(NEW))
    desk.mailed(a_mail(renewed, Message_ID="<2@partner.example>"), first=2)
    (warning,) = [f for p in desk.proposals() if p.id != one.id for f in p.findings if f.code == "reply.differs"]
    assert one.id in warning.message


def test_same_mail_in_another_copy_is_one(desk: Desk) -> None:
    mail = a_mail(NEW)
    desk.mailed(mail)
    (one,) = desk.mailed(b"Received: by another\r\n" + mail, first=7)
    desk.replies.conclude(MZP, one.id, Outcome.DISMISSED, "a duplicate")
    (again,) = desk.mailed(mail, first=9)
    assert again.outcome is Outcome.DISMISSED


def test_imported_reply_again_is_no_task(desk: Desk) -> None:
    assert not desk.mailed(a_mail(OLD, *CAS, Message_ID="<again@partner.example>"))
    (one,) = desk.mailed(a_mail(OLD, text="Your certificate expires in 30 days.", answers=""), first=5)
    assert one.kind is Arrival.EXPIRY


def test_same_id_with_other_content_is_another(desk: Desk) -> None:
    assert len(desk.mailed(a_mail(NEW), a_mail(OTHER))) == 2


def test_mails_about_nothing_of_ours_are_left(desk: Desk) -> None:
    ours = a_mail(answers="", Message_ID=SENT, text=f"please sign the request of {pki.LOGIN}")
    assert not desk.mailed(a_mail(answers="", text="Buy now: https://shop.example/"), ours)
    assert desk.mark.uid == 2


def test_link_has_a_clock_and_is_defanged(desk: Desk) -> None:
    text = "Download it: https://user@files.partner.example/get?token=s3cret\nIt is available for 3 days."
    (one,) = desk.mailed(a_mail(text=text))
    assert one.kind is Arrival.LINK
    assert one.download_by == RECEIVED + timedelta(days=3)
    assert one.holds == ("link to hxxps://files[.]partner[.]example/…, which was not opened",)
    assert "s3cret" not in repr(one)


@pytest.mark.parametrize(
    ("words", "days"),
    [
        ("", 7),
        ("The link expires on 2026-03-05.", None),
        ("valid for 48 hours", 2),
        ("valid for 999 weeks", 7),
        ("available until 0000-99-99", 7),
        ("expires in 2 weeks", 14),
    ],
)
def test_end_of_a_link(words: str, days: int | None, desk: Desk) -> None:
    date = f"{RECEIVED + timedelta(days=4):%F}"
    text = f"https://files.partner.example/get\n{words.replace('2026-03-05', date)}"
    (one,) = desk.mailed(a_mail(text=text))
    assert one.download_by
    if days is None:
        assert f"{one.download_by - timedelta(days=1):%F %T}" == f"{date} 00:00:00"
    else:
        assert one.download_by == RECEIVED + timedelta(days=days)


def test_answer_without_anything_is_a_task(desk: Desk) -> None:
    (one,) = desk.mailed(a_mail(text="We cannot sign this: the OU is wrong."))
    assert one.kind is Arrival.UNREADABLE


@pytest.mark.slow
def test_private_key_is_named_and_not_stored(desk: Desk) -> None:
    secret = pki.run("openssl", "genpkey", "-algorithm", "RSA").decode()
    (one,) = desk.mailed(a_mail(NEW, text=secret))
    assert [f.code for f in one.findings if f.code == "reply.private-key"]
    assert "PRIVATE KEY-" not in repr(one)
    assert secret.splitlines()[3] not in repr(one)


def test_terminal_escapes_are_taken_out(desk: Desk) -> None:
    name = base64.b64encode("\x1b]0;owned\x07\u202e\r\nBcc: x".encode()).decode()
    (one,) = desk.mailed(a_mail(NEW).replace(b"Re: your request", f"=?utf-8?B?{name}?=".encode()))
    assert one.subject.isprintable()
    assert "owned" in one.subject


@pytest.mark.parametrize("charset", ["nonsense", "utf-16", "idna", "\udcff"])
def test_odd_charsets_are_read(charset: str, desk: Desk) -> None:
    subject = f"=?{charset}?B?////?= =?utf-8?Q?=?=".encode(errors="surrogateescape")
    assert desk.mailed(a_mail(NEW).replace(b"Re: your request", subject))


@pytest.mark.slow
def test_thousands_of_parts_are_a_task(desk: Desk) -> None:
    parts = b"".join(b"--cut\r\nContent-Type: text/plain\r\n\r\nx\r\n" for _ in range(10_000))
    mail = a_mail().replace(b"text/plain", b"multipart/mixed; boundary=cut") + parts
    (one,) = desk.mailed(mail)
    assert one.kind is Arrival.UNREADABLE
    assert any("more than 256 parts" in f.message for f in one.findings)


def test_large_mail_is_a_task(desk: Desk) -> None:
    (one,) = desk.mailed(a_mail(NEW).partition(b"\r\n\r\n")[0], size=10**9)
    assert one.kind is Arrival.UNREADABLE
    assert "1000000000 bytes" in one.findings[0].message


def test_expiry_notice_is_a_task_of_its_account(desk: Desk) -> None:
    text = f"The certificate of {pki.LOGIN} expires in 30 days. See https://portal.partner.example/"
    account = waiting_account()
    closed = [replace(r, closed=r.closed or Closed.CANCELLED, closed_at=pki.NOW) for r in account.requests]
    desk.known = [replace(account, requests=tuple(closed))]
    (one,) = desk.mailed(a_mail(answers="", text=text))
    assert (one.kind, one.request) == (Arrival.EXPIRY, 0)
    assert not desk.mailed(a_mail(answers="", text="MZP is down"), first=5)[1:]


def test_expiry_notice_by_serial_number(desk: Desk) -> None:
    serial = desk.known[0].certificates[0].serial.rjust(40, "0").upper()
    spaced = ":".join(serial[n : n + 2] for n in range(0, len(serial), 2))
    (one,) = desk.mailed(a_mail(answers="", text=f"The certificate {spaced} expires soon."))
    assert one.kind is Arrival.EXPIRY


def test_bounce_of_our_mail_is_a_task(desk: Desk) -> None:
    (one,) = desk.mailed(bounce(SENT))
    assert (one.kind, one.request) == (Arrival.BOUNCE, 2)
    assert one.holds == ("the mail server could not deliver to desk@partner.example (5.1.1)",)
    (one_bounce,) = desk.bounces
    assert (one_bounce.message_id, one_bounce.recipient, one_bounce.status) == (SENT, "desk@partner.example", "5.1.1")


@pytest.mark.parametrize(("action", "message_id"), [("delayed", SENT), ("failed", "<spoofed@mail.example>")])
def test_other_reports_are_no_task(action: str, message_id: str, desk: Desk) -> None:
    assert not desk.mailed(bounce(message_id, action))


def test_damaged_record_stops_no_other(desk: Desk) -> None:
    other = waiting_account("other")
    desk.known.insert(0, other)
    kept = desk.change

    def change(name: AccountName, change: object) -> object:
        if name == MZP:
            raise RefusedError("the rotation record of mzp-1 is damaged")
        return kept(name, change)

    desk.change = change  # type: ignore[method-assign,assignment]
    desk.mailed(a_mail(NEW), a_mail(NEW, Message_ID="<2@partner.example>"))
    assert len(desk.proposals(other.name)) == 2
    assert "mail 1 is left in the mailbox" in desk.said[0]


def test_vault_away_keeps_the_mail(desk: Desk) -> None:
    """What was read before stays read; the rest comes with the next poll."""
    kept, calls = desk.change, []

    def change(name: AccountName, change: object) -> object:
        calls.append(name)
        if len(calls) == 2:
            raise DeniedError("Vault is away")
        return kept(name, change)

    desk.change = change  # type: ignore[method-assign,assignment]
    mails = a_mail(NEW), a_mail(OTHER, Message_ID="<2@partner.example>")
    with pytest.raises(DeniedError):
        desk.mailed(*mails)
    assert desk.mark.uid == 1
    assert len(desk.mailed(*mails)) == 2


# the drop folder


def dropped(desk: Desk, name: str, data: bytes) -> tuple[str, str]:
    moves: list[tuple[str, str]] = []
    desk.replies.read_folder([Dropped(name, RECEIVED, data, lambda to, why: moves.append((to, why)))])
    (move,) = moves
    return move


def test_dropped_file_that_fits_is_imported(desk: Desk) -> None:
    assert dropped(desk, "reply.pem", pki.pem(NEW, *CAS).encode()) == (
        "done",
        "imported into mzp-1\nnext: broker rotation promote mzp-1\n",
    )
    assert desk.imported == [MZP]
    assert not desk.proposals()


def test_dropped_file_with_a_question_waits() -> None:
    desk = Desk([waiting_account(again=False)])
    folder, why = dropped(desk, "reply.pem", pki.pem(OLD, *CAS).encode())
    (one,) = desk.proposals()
    assert (folder, one.source) == ("done", "reply.pem")
    assert f"broker reply show mzp-1/{one.id}" in why
    assert not desk.imported


def test_dropped_file_of_nobody_is_refused(desk: Desk) -> None:
    folder, why = dropped(desk, "x\x1b.pem", b"hello")
    assert folder == "refused"
    assert "it fits no signing request" in why
    assert not desk.proposals()
