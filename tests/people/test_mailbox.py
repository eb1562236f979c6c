"""The watched mailbox on a real Dovecot: read, and not changed."""

from __future__ import annotations

import imaplib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from broker.copies import replace
from broker.errors import InputError, MailUnavailableError
from broker.model.proposal import Arrival
from broker.model.secret import Secret
from broker.people import mailbox as limits
from broker.people.imap import imap_session
from broker.people.login import Auth, Login, WrongLoginError
from broker.people.mailbox import ImapMailbox
from broker.people.server import MailServer, Tls
from broker.people.smtp import Mailer
from broker.scheduling.replies import Letter, Mark
from tests.support.mail_servers import BROKER, NOBODY, PASSWORD, MailServers
from tests.support.replies import SENT, Desk, a_mail

pytestmark = [pytest.mark.slow, pytest.mark.peer("dovecot", "postfix"), pytest.mark.rights("chown")]
NOW = datetime.now(UTC)


def a_mailbox(servers: MailServers, auth: Auth = Auth.PASSWORD, *, port: int = 0, **settings: str) -> ImapMailbox:
    server = MailServer("imap", servers.host, port or servers.imaps, Tls.TLS, str(servers.ca_file))
    login = Login(BROKER, auth, lambda: Secret(PASSWORD if auth is Auth.PASSWORD else servers.token()))
    return ImapMailbox(server, login, **settings)


def put(servers: MailServers, *numbers: int, body: str = "text") -> None:
    for number in numbers:
        servers.put(BROKER, f"Subject: mail {number}\r\nMessage-ID: <{number}@partner.test>\r\n\r\n{body}\r\n".encode())


def polled(box: ImapMailbox, after: Mark) -> tuple[list[Letter], Mark]:
    """Return the mails that a poll reads, and the mark after them."""
    found = list(box.arrived(after, NOW))
    return [letter for letter, _ in found if letter], found[-1][1] if found else after


def subjects(letters: list[Letter]) -> list[str]:
    return [letter.data.splitlines()[0].decode().removeprefix("Subject: ") for letter in letters]


def flags(servers: MailServers) -> list[bytes]:
    """Return the flags of every mail, as another program sees them."""
    box = a_mailbox(servers)
    with imap_session(box.server, box.login) as session:
        session.select("INBOX", readonly=True)
        return [line for line in session.fetch("1:*", "(UID FLAGS)")[1] if isinstance(line, bytes)]


@pytest.mark.parametrize("auth", list(Auth))
def test_mails_are_read_and_not_changed(mail_servers: MailServers, auth: Auth) -> None:
    put(mail_servers, 1, 2)
    before = flags(mail_servers)
    box = a_mailbox(mail_servers, auth)
    letters, mark = polled(box, Mark())
    assert subjects(letters) == ["mail 1", "mail 2"]
    assert flags(mail_servers) == before
    assert not any(b"Seen" in line for line in before)
    assert len(mail_servers.mails(BROKER)) == 2
    assert polled(box, mark)[0] == []


def test_a_poll_goes_on_after_the_mark(mail_servers: MailServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 2)
    put(mail_servers, 1, 2, 3)
    box = a_mailbox(mail_servers)
    letters, mark = polled(box, Mark())
    assert subjects(letters) == ["mail 1", "mail 2"]
    letters, mark = polled(box, mark)
    assert subjects(letters) == ["mail 3"]
    put(mail_servers, 4)
    assert subjects(polled(box, mark)[0]) == ["mail 4"]


def test_old_mails_are_never_read(mail_servers: MailServers) -> None:
    put(mail_servers, 1)
    box = a_mailbox(mail_servers)
    years = NOW + timedelta(days=800)
    ((nothing, mark),) = box.arrived(Mark(), years)
    assert nothing is None
    put(mail_servers, 2)
    assert subjects(polled(box, mark)[0]) == ["mail 2"]


def test_other_uidvalidity_begins_again(mail_servers: MailServers) -> None:
    put(mail_servers, 1)
    box = a_mailbox(mail_servers)
    _, mark = polled(box, Mark())
    assert subjects(polled(box, replace(mark, validity=mark.validity + 1, uid=99))[0]) == ["mail 1"]
    assert subjects(polled(replace(box, folder="Inbox"), mark)[0]) == ["mail 1"]  # another name has another mark


def recreated(servers: MailServers) -> None:
    """Remove the folder Replies and make it again with the same mails, as after a restore: another UIDVALIDITY."""
    box = a_mailbox(servers)
    with imap_session(box.server, box.login) as session:
        session.select("Replies")
        mails = [part[1] for part in session.fetch("1:*", "(BODY.PEEK[])")[1] if isinstance(part, tuple)]
        session.close()
        session.delete("Replies")
        session.create("Replies")
        for mail in mails:
            session.append("Replies", "", imaplib.Time2Internaldate(NOW - timedelta(days=3)), mail)


def test_a_recreated_folder_loses_no_reply(mail_servers: MailServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reply was proposed before, the other waited for the next poll. Each is proposed once."""
    box, desk = a_mailbox(mail_servers, folder="Replies"), Desk(now=NOW)
    with imap_session(box.server, box.login) as session:
        session.create("Replies")
        for number in (1, 2):
            mail = a_mail(text=f"letter {number}: please be patient", Message_ID=f"<{number}@partner.test>")
            session.append("Replies", "", imaplib.Time2Internaldate(NOW - timedelta(days=3)), mail)
    with monkeypatch.context() as bounded:
        bounded.setattr(limits, "MOST", 1)
        desk.replies.read_mailbox(box, desk.marks)
    before, validity = [one.message_id for one in desk.proposals()], desk.mark.validity
    assert before == ["<1@partner.test>"]
    recreated(mail_servers)
    for _ in range(2):
        desk.replies.read_mailbox(box, desk.marks)
        assert sorted(one.message_id for one in desk.proposals()) == ["<1@partner.test>", "<2@partner.test>"]
    assert desk.mark.validity != validity


def test_large_mails_are_not_fetched(mail_servers: MailServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGEST", 1000)
    put(mail_servers, 1, body="x" * 5000)
    put(mail_servers, 2)
    (large, small), _ = polled(a_mailbox(mail_servers), Mark())
    assert b"Message-ID: <1@partner.test>" in large.data
    assert len(large.data) < 1000 < large.size
    assert small.size == len(small.data)


def test_wrong_logins_are_named(mail_servers: MailServers) -> None:
    box = a_mailbox(mail_servers)
    assert box.login
    wrong = replace(box, login=replace(box.login, secret=lambda: Secret("wr0ng-pl4nted")))
    with pytest.raises(WrongLoginError) as caught:
        polled(wrong, Mark())
    assert "wr0ng" not in str(caught.value)
    stale = a_mailbox(mail_servers, Auth.XOAUTH2)
    token = mail_servers.token(signer="another")
    assert stale.login
    with pytest.raises(WrongLoginError):
        polled(replace(stale, login=replace(stale.login, secret=lambda: Secret(token))), Mark())


def test_missing_folder_names_the_setting(mail_servers: MailServers) -> None:
    with pytest.raises(InputError, match="has no folder 'Replies'") as caught:
        polled(a_mailbox(mail_servers, folder="Replies"), Mark())
    assert "[mail.imap]" in caught.value.hint


def test_a_real_bounce_is_a_task(mail_servers: MailServers) -> None:
    """Postfix says that the partner's address does not exist."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"], message["Message-ID"] = BROKER, NOBODY, "CSR", SENT
    message.set_content("please sign")
    server = MailServer("smtp", mail_servers.host, mail_servers.smtps, Tls.TLS, str(mail_servers.ca_file))
    Mailer(server, BROKER, a_mailbox(mail_servers).login).send(message)
    mail_servers.arrived(BROKER)
    desk = Desk(now=datetime.now(UTC) + timedelta(seconds=5))
    desk.replies.read_mailbox(a_mailbox(mail_servers), desk.marks)
    (one,) = desk.proposals()
    assert (one.kind, one.request) == (Arrival.BOUNCE, 2)
    assert NOBODY in one.holds[0]
    assert [bounce.message_id for bounce in desk.bounces] == [SENT]


@contextmanager
def cutting(port: int, octets: int) -> Iterator[int]:
    """Yield the port of a server before another that hangs up after so many octets of it."""

    def forward() -> None:
        client, _ = server.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as behind:
            left = octets
            while left > 0:
                for ready in select.select([client, behind], [], [])[0]:
                    data = ready.recv(min(left, 65536))
                    if not data:
                        return
                    (behind if ready is client else client).sendall(data)
                    left -= len(data) if ready is behind else 0

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=forward)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_connection_cut_in_a_mail(mail_servers: MailServers) -> None:
    """The mails before are read, and the next poll goes on with the one that was cut."""
    put(mail_servers, 1)
    put(mail_servers, 2, body="line\r\n" * 30_000)
    with cutting(mail_servers.imaps, 60_000) as port:
        arrived = a_mailbox(mail_servers, port=port).arrived(Mark(), NOW)
        _, mark = next(arrived)
        with pytest.raises(MailUnavailableError, match="closed"):
            next(arrived)
    box = a_mailbox(mail_servers)
    letters, _ = polled(box, replace(mark, mailbox=box.name))
    assert subjects(letters) == ["mail 2"]
    assert len(letters[0].data) > 150_000


def test_mails_are_moved_only_if_configured(mail_servers: MailServers) -> None:
    put(mail_servers, 1, 2)
    box = a_mailbox(mail_servers, move_to="Done")
    with imap_session(box.server, box.login) as session:
        session.create("Done")
    for letter, _ in box.arrived(Mark(), NOW):
        if letter and b"mail 1" in letter.data:
            letter.put_away()
    assert len(flags(mail_servers)) == 1
    assert subjects(polled(a_mailbox(mail_servers, folder="Done"), Mark())[0]) == ["mail 1"]


def test_folder_to_move_to_is_missing(mail_servers: MailServers) -> None:
    put(mail_servers, 1)
    box = a_mailbox(mail_servers, move_to="Missing")
    arrived = box.arrived(Mark(), NOW)
    letter, _ = next(arrived)
    assert letter
    with pytest.raises(InputError, match="did not move a mail to 'Missing'"):
        letter.put_away()
    arrived.close()
    assert len(flags(mail_servers)) == 1
