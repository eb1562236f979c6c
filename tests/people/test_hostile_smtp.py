"""Mail servers that misbehave, and texts that would be more than one line of SMTP."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage

import pytest

from broker.errors import BrokerError, InputError, MailUnavailableError
from broker.model.secret import Secret
from broker.people.imap import imap_session
from broker.people.login import Auth, Login, WrongLoginError
from broker.people.server import MailServer, MailTlsError, Tls
from broker.people.smtp import Mailer, MailRefusedError

PASSWORD = "m4il-pl4nted-p4ssword"
EHLO = b"250-mail.test\r\n250-SIZE 1000000\r\n250 AUTH PLAIN LOGIN\r\n"
HELLO = b"220 mail.test ESMTP\r\n"
Script = Callable[["Talk"], object]


@dataclass
class Talk:
    """The server's side of one connection. `heard` are the lines that the client sent."""

    channel: socket.socket
    heard: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._file = self.channel.makefile("rb")

    def close(self) -> None:
        self._file.close()

    def say(self, text: bytes) -> Talk:
        self.channel.sendall(text)
        return self

    def hear(self, text: bytes = b"") -> Talk:
        """Read a line, then say `text`."""
        self.heard.append(self._file.readline())
        return self.say(text)

    def hear_mail(self, text: bytes) -> Talk:
        while self._file.readline() not in (b".\r\n", b""):
            pass
        return self.say(text)

    def wait(self) -> None:
        """Say nothing until the client goes away."""
        while self._file.readline():
            pass


@contextmanager
def scripted(script: Script) -> Iterator[tuple[int, list[Talk]]]:
    """Serve one connection as `script` says; yield the port, and what was said."""
    talks: list[Talk] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        channel, _ = server.accept()
        with channel:
            talks.append(Talk(channel))
            with suppress(OSError):  # the client went away
                script(talks[-1])
            talks[-1].close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1], talks
    finally:
        with socket.create_connection(server.getsockname()):  # in case that nobody came
            pass
        thread.join()
        server.close()


def a_mailer(port: int, tls: Tls = Tls.NONE, limit: float = 20, login: bool = True) -> Mailer:
    user = Login("broker@company.test", Auth.PASSWORD, lambda: Secret(PASSWORD)) if login else None
    return Mailer(MailServer("smtp", "127.0.0.1", port, tls), "broker@company.test", user, limit)


def a_mail(to: str = "desk@partner.test") -> EmailMessage:
    message = EmailMessage()
    message["To"] = to
    message.set_content("Hello\n")
    return message


def logged_in(talk: Talk) -> Talk:
    return talk.say(HELLO).hear(EHLO).hear(b"235 ok\r\n")


def sent(talk: Talk, answer: bytes) -> Talk:
    return logged_in(talk).hear(b"250 ok\r\n").hear(b"250 ok\r\n").hear(b"354 go on\r\n").hear_mail(answer)


def assert_fails(kind: type[BrokerError], script: Script, says: str, tls: Tls = Tls.NONE, limit: float = 20) -> Talk:
    """Assert that sending fails so, and that neither the password nor a line break is in the error."""
    with scripted(script) as (port, talks), pytest.raises(kind) as caught:
        a_mailer(port, tls, limit).send(a_mail())
    assert caught.type is kind
    shown = f"{caught.value.message} {caught.value.hint}"
    assert says in shown
    encoded = base64.b64encode(f"\0broker@company.test\0{PASSWORD}".encode()).decode()
    assert PASSWORD not in shown
    assert encoded not in shown
    assert shown.isprintable()
    return talks[0]


def test_other_letters_need_smtputf8() -> None:
    """A server that does not offer it hears no address, and the error names the one that cannot be sent."""
    refused = pytest.raises(MailRefusedError, match="no SMTPUTF8, so no mail with büro@partner")
    with scripted(lambda talk: logged_in(talk).wait()) as (port, talks), refused as caught:
        a_mailer(port).deliver(b"To: x\r\n\r\n", ["desk@partner.test", "büro@partner.test"])
    assert "ASCII name before the @" in caught.value.hint
    assert not [line for line in talks[0].heard if line.lower().startswith(b"mail")]


def test_stripped_starttls_sends_nothing() -> None:
    for answer in (None, b"454 not now\r\n"):
        offer = EHLO if answer is None else EHLO.replace(b"250 AUTH", b"250-STARTTLS\r\n250 AUTH")

        def script(talk: Talk, offer: bytes = offer, answer: bytes | None = answer) -> None:
            talk.say(HELLO).hear(offer)
            (talk.hear(answer) if answer else talk).wait()

        talk = assert_fails(MailTlsError, script, "offers no TLS; nothing was sent", Tls.STARTTLS)
        assert not [line for line in talk.heard if line.startswith((b"AUTH", b"mail"))]


def test_imap_without_starttls_sends_nothing() -> None:
    for hello in (b"* OK ready\r\n", b"* PREAUTH welcome\r\n"):

        def script(talk: Talk, hello: bytes = hello) -> None:
            talk.say(hello)
            while line := talk._file.readline():
                talk.heard.append(line)
                tag = line.split()[0]
                talk.say(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n" + tag + b" OK done\r\n")

        login = Login("broker@company.test", Auth.PASSWORD, lambda: Secret(PASSWORD))
        with scripted(script) as (port, talks), pytest.raises(MailTlsError, match="offers no TLS"):
            imap_session(MailServer("imap", "127.0.0.1", port, Tls.STARTTLS), login).__enter__()
        assert not [line for line in talks[0].heard if b"AUTH" in line or b"LOGIN" in line]


def test_text_before_tls_is_not_believed() -> None:
    """What a man in the middle appends to the answer of STARTTLS is dropped with the connection it came on."""

    def script(talk: Talk) -> None:
        talk.say(HELLO).hear(EHLO.replace(b"250 AUTH", b"250-STARTTLS\r\n250 AUTH"))
        talk.hear(b"220 go ahead\r\n250-forged\r\n250 AUTH PLAIN\r\n").wait()

    talk = assert_fails(MailUnavailableError, script, "", Tls.STARTTLS, limit=0.3)
    assert not [line for line in talk.heard if line.startswith((b"AUTH", b"mail"))]


@pytest.mark.parametrize(
    "script",
    [
        lambda talk: talk.wait(),
        lambda talk: talk.say(HELLO).hear(EHLO).wait(),
        lambda talk: [talk.say(b"220-x\r\n") for _ in iter(int, 1)],
        lambda talk: logged_in(talk).hear(b"25").wait(),
    ],
    ids=["silent", "slow", "endless", "half a line"],
)
def test_a_slow_server_ends_at_the_deadline(script: Script) -> None:
    with scripted(script) as (port, _), pytest.raises(MailUnavailableError) as caught:
        a_mailer(port, limit=0.2).send(a_mail())
    assert "did not answer in time" in caught.value.message or "gave no usable answer" in caught.value.message


@pytest.mark.parametrize(
    ("script", "kind", "says"),
    [
        (lambda talk: talk.say(b"554 go away\r\n").wait(), MailRefusedError, "refuses the connection: 554 go away"),
        (lambda talk: talk.say(b"421 busy\r\n").wait(), MailUnavailableError, "does not take the connection now"),
        (lambda talk: talk.say(b"hello\r\n").wait(), MailUnavailableError, "gave no usable answer"),
        (lambda talk: talk.say(HELLO), MailUnavailableError, "closed the connection"),
        (lambda talk: talk.say(b"220 " + b"x" * 9000 + b"\r\n").wait(), MailUnavailableError, "no usable answer"),
        (
            lambda talk: talk.say(HELLO).hear(EHLO).hear(b"535 wrong: " + PASSWORD.encode() + b"\x1b[2J\r\n").wait(),
            WrongLoginError,
            "535 wrong: <hidden>",
        ),
        (lambda talk: talk.say(HELLO).hear(EHLO).hear(b"454 4.7.0 later\r\n").wait(), MailUnavailableError, "454"),
        (lambda talk: talk.say(HELLO).hear(EHLO).hear(b"334 eA==\r\n").hear(b"501 no\r\n").wait(), WrongLoginError, ""),
        (lambda talk: logged_in(talk).hear(b"553 5.7.1 not yours\r\n").wait(), MailRefusedError, "the sender"),
        (lambda talk: sent(talk, b"554 5.7.1 spam\r\n").wait(), MailRefusedError, "refuses the mail: 554 5.7.1 spam"),
        (lambda talk: sent(talk, b"451 4.7.1 later\r\n").wait(), MailUnavailableError, "does not take the mail now"),
        (lambda talk: sent(talk, b"552 5.3.4 big\r\n").wait(), MailRefusedError, "as too large"),
        (lambda talk: sent(talk, b""), MailUnavailableError, "it may have been sent"),
    ],
)
def test_answers_are_told_apart(script: Script, kind: type[BrokerError], says: str) -> None:
    assert_fails(kind, script, says)


def test_an_accepted_mail_stays_accepted() -> None:
    """A server that hangs up after it took the mail, in answer to QUIT, has taken it."""
    with scripted(lambda talk: sent(talk, b"250 queued\r\n").hear()) as (port, talks):
        assert a_mailer(port).send(a_mail()) == ()
    assert b"mail from:<broker@company.test> size=127\r\n" in map(bytes.lower, talks[0].heard)


def test_login_by_login_if_there_is_no_plain() -> None:
    def script(talk: Talk) -> None:
        talk.say(HELLO).hear(EHLO.replace(b"PLAIN LOGIN", b"LOGIN"))
        talk.hear(b"334 VXNlcm5hbWU6\r\n").hear(b"334 UGFzc3dvcmQ6\r\n").hear(b"235 ok\r\n").hear(b"221 bye\r\n")

    with scripted(script) as (port, talks):
        a_mailer(port).check()
    _, command, user, password, _ = talks[0].heard
    assert command == b"AUTH LOGIN\r\n"
    assert [base64.b64decode(line) for line in (user, password)] == [b"broker@company.test", PASSWORD.encode()]


def test_a_mechanism_that_is_not_offered() -> None:
    login = Login("broker@company.test", Auth.XOAUTH2, lambda: Secret("a.b.c"))
    with scripted(lambda talk: talk.say(HELLO).hear(EHLO).wait()) as (port, talks):
        mailer = Mailer(MailServer("smtp", "127.0.0.1", port, Tls.NONE), "broker@company.test", login)
        with pytest.raises(InputError, match="offers no login by XOAUTH2, but: PLAIN, LOGIN"):
            mailer.check()
    assert not [line for line in talks[0].heard if line.startswith(b"AUTH")]


def test_the_clear_is_for_loopback_only() -> None:
    with pytest.raises(InputError, match="unencrypted; refusing"):
        MailServer("smtp", "mail.company.example", 25, Tls.NONE)


@pytest.mark.parametrize(
    "address",
    [
        "desk@partner.test\r\nRCPT TO:<x@evil.test>",
        "desk@partner.test>\nDATA",
        "desk@p\u2024rtner.test",
        "desk@\u0300rtner.test",
        "desk@partner.test x@evil.test",
        "desk",
        "",
    ],
)
def test_an_odd_address_reaches_no_server(address: str) -> None:
    mailer = a_mailer(1)
    with pytest.raises(InputError):
        mailer.deliver(b"Subject: x\r\n\r\nx\r\n", [address])
    with pytest.raises(InputError):
        Mailer(mailer.server, address).deliver(b"Subject: x\r\n\r\nx\r\n", ["desk@partner.test"])


def test_a_domain_of_other_letters_in_ascii() -> None:
    with scripted(lambda talk: sent(talk, b"250 ok\r\n").hear(b"221 bye\r\n")) as (port, talks):
        a_mailer(port).send(a_mail("desk@xn--prtner-bua.test"))
    assert b"rcpt to:<desk@xn--prtner-bua.test>\r\n" in map(bytes.lower, talks[0].heard)
