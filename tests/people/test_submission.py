"""A signing request that is sent by mail: kills and others in between, and what arrives at a real mail server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from broker.copies import replace
from broker.errors import MailUnavailableError, RefusedError
from broker.model.account import Account
from broker.model.changes import requesting
from broker.model.clock import Stamp
from broker.model.generation import Closed, SigningRequest, Submission
from broker.model.names import AccountName
from broker.model.rotation_record import RotationRecord
from broker.partners.catalogue import builtin
from broker.people.eml import csr_mail
from broker.people.smtp import Mailer
from broker.people.submission import SendByMail
from tests.people.test_smtp import a_mailer
from tests.support.accounts import BY, NOW, a_request, an_account, later
from tests.support.mail_servers import BROKER, DESK, REFUSED, MailServers

PROFILE = builtin("stellantis")


class Killed(BaseException):
    """The process ends here."""


@dataclass
class World:
    """An account with an open request, its record, and a mail server that notes what it is given."""

    account: Account
    record: RotationRecord = field(default_factory=RotationRecord)
    mails: list[tuple[bytes, tuple[str, ...]]] = field(default_factory=list)
    time: float = 0  # hours
    refused: tuple[str, ...] = ()
    kill: str = ""  # the step at which the process is killed, before it
    between: Callable[[], object] = lambda: None  # what somebody does between storing and sending

    def sender(self, mailer: Callable[[], Mailer] | None = None) -> SendByMail:
        return SendByMail(
            mailer or self._mailer, self, lambda _: self.account, self.submit, lambda: later(hours=self.time)
        )

    def send(self, *to: str, mailer: Callable[[], Mailer] | None = None) -> Submission:
        request = self.account.requests[-1]
        return self.sender(mailer)(self.account, request, PROFILE, to).submission

    def _mailer(self) -> Mailer:
        world = self

        class Noting(Mailer, frozen=True):
            def deliver(self, content: bytes, recipients: Sequence[str]) -> tuple[str, ...]:
                world.step("deliver")
                world.mails.append((content, tuple(recipients)))
                return world.refused

        return Noting(None, BROKER)  # type: ignore[arg-type]

    def read(self, name: AccountName) -> RotationRecord:
        return self.record

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        after = change(self.record)
        if after != self.record:
            self.step("store" if after.sent else "forget")
            self.record = after
        if after.sent:
            self.between()
        return after

    def submit(self, name: AccountName, number: int, submission: Submission) -> SigningRequest:
        self.step("submit")
        self.account = requesting.submitted(self.account, number, submission, by=BY)
        return self.account.request(number)

    def step(self, name: str) -> None:
        if name == self.kill:
            raise Killed

    @property
    def submissions(self) -> tuple[Submission, ...]:
        return self.account.requests[-1].submissions


@pytest.fixture
def world() -> World:
    account = an_account()
    account = replace(account, contacts=replace(account.contacts, partner=(DESK,)))
    return World(requesting.requested(account, a_request(account), by=BY))


def test_sent_once_and_recorded(world: World) -> None:
    expected = csr_mail(world.account, world.account.requests[-1], PROFILE, (), NOW).message_id
    sent = world.send()
    assert (sent.via, sent.to, sent.message_id) == ("smtp", DESK, expected)
    assert world.submissions == (sent,)
    assert world.record.sent == ()
    world.time = 5
    assert world.send() == sent
    assert len(world.mails) == 1


@pytest.mark.parametrize("step", ["store", "deliver", "submit", "forget"])
def test_killed_anywhere_it_is_one_mail(world: World, step: str) -> None:
    """The second process has another clock, other contacts and another sender, and sends the first one's bytes."""
    world.kill = step
    with pytest.raises(Killed):
        world.send()
    stored = [mail.content for mail in world.record.sent]
    world.kill, world.time = "", 30
    contacts = replace(world.account.contacts, partner=("new@partner.test",))
    world.account = replace(world.account, contacts=contacts, language="fr")
    world.send()
    assert len({content for content, _ in world.mails}) == 1
    assert not stored or world.mails[-1][0].decode() == stored[0]
    assert len(world.mails) == (2 if step == "submit" else 1)
    assert len(world.submissions) == 1
    assert world.record.sent == ()


def test_two_at_the_same_time_send_the_same(world: World) -> None:
    other: list[Submission] = []

    def meanwhile() -> None:
        world.between = lambda: None
        world.time += 1
        other.append(world.send())

    world.between = meanwhile
    assert world.send().message_id == other[0].message_id
    assert len({content for content, _ in world.mails}) == 1
    assert len(world.submissions) == 1


def test_a_request_closed_meanwhile_is_not_sent(world: World) -> None:
    def close() -> None:
        number = world.account.requests[-1].number
        world.account = requesting.closed(world.account, number, Closed.SUPERSEDED, Stamp(later(days=1), BY))

    world.between = close
    with pytest.raises(RefusedError, match="superseded"):
        world.send()
    assert world.mails == []


def test_another_recipient_gets_another_mail(world: World) -> None:
    first = world.send()
    for _ in range(2):
        second = world.send("other@partner.test")
    assert first.message_id != second.message_id
    assert [to for _, to in world.mails] == [(DESK,), ("other@partner.test",)]
    assert world.submissions == (first, second)


def test_few_mails_wait_at_once(world: World) -> None:
    world.kill = "deliver"
    for number in range(9):
        with pytest.raises(Killed):
            world.send(f"desk-{number}@partner.test")
    assert [mail.to[0] for mail in world.record.sent] == [f"desk-{number}@partner.test" for number in range(5, 9)]


def test_refused_recipients_are_not_recorded(world: World) -> None:
    world.account = replace(world.account, contacts=replace(world.account.contacts, partner=(DESK, REFUSED)))
    world.refused = (REFUSED,)
    assert world.send().to == DESK


@pytest.mark.slow
@pytest.mark.peer("dovecot", "postfix")
@pytest.mark.rights("chown")
def test_the_desk_gets_one_message_id(world: World, mail_servers: MailServers) -> None:
    """Killed after the mail was sent: the second run sends the same mail, and the desk sees one Message-ID."""
    world.kill = "submit"
    with pytest.raises(Killed):
        world.send(mailer=lambda: a_mailer(mail_servers))
    world.kill, world.time = "", 30
    world.send(mailer=lambda: a_mailer(mail_servers))
    first = mail_servers.arrived(DESK)
    mail_servers.arrived(DESK, lambda _: len(mail_servers.mails(DESK)) == 2)
    assert {mail["Message-ID"] for mail in mail_servers.mails(DESK)} == {world.submissions[0].message_id}
    assert {mail.as_string().partition("From: ")[2] for mail in mail_servers.mails(DESK)} == {
        first.as_string().partition("From: ")[2]
    }
    assert first["From"] == BROKER
    (attachment,) = first.iter_attachments()
    assert attachment.get_content_type() == "application/pkcs10"


@pytest.mark.slow
@pytest.mark.peer("dovecot", "postfix")
@pytest.mark.rights("chown")
def test_try_later_leaves_the_mail_fixed(world: World, mail_servers: MailServers) -> None:
    away = replace(a_mailer(mail_servers), server=replace(a_mailer(mail_servers).server, port=1))
    with pytest.raises(MailUnavailableError):
        world.send(mailer=lambda: away)
    (fixed,) = world.record.sent
    world.time = 3
    world.send(mailer=lambda: a_mailer(mail_servers))
    assert mail_servers.arrived(DESK)["Message-ID"] == fixed.message_id
