"""Mails sent to a real Postfix, with logins that a real Dovecot knows; what is refused, and what is not said."""

from __future__ import annotations

from collections.abc import Callable
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path

import pytest

from broker.addresses import new_mail
from broker.copies import replace
from broker.errors import BrokerError, MailUnavailableError
from broker.model.secret import Secret
from broker.people.imap import imap_session
from broker.people.login import Auth, Login, WrongLoginError
from broker.people.server import MailServer, MailTlsError, Tls
from broker.people.smtp import Mailer, MailRefusedError
from broker.scheduling.incoming import read_mail
from tests.support.accounts import NOW
from tests.support.mail_servers import (
    BROKER,
    BUREAU,
    DESK,
    GREYLISTED,
    LARGEST,
    NOBODY,
    PASSWORD,
    REFUSED,
    MailServers,
)
from tests.support.pki import a_ca

pytestmark = [pytest.mark.slow, pytest.mark.peer("dovecot", "postfix"), pytest.mark.rights("chown")]
WRONG = "wr0ng-pl4nted"


def a_login(servers: MailServers, auth: Auth) -> Login:
    return Login(BROKER, auth, lambda: Secret(PASSWORD if auth is Auth.PASSWORD else servers.token()))


def a_mailer(servers: MailServers, auth: Auth = Auth.PASSWORD, tls: Tls = Tls.STARTTLS) -> Mailer:
    port = servers.smtps if tls is Tls.TLS else servers.smtp
    return Mailer(MailServer("smtp", servers.host, port, tls, str(servers.ca_file)), BROKER, a_login(servers, auth))


def an_imap_server(servers: MailServers, tls: Tls) -> MailServer:
    port = servers.imaps if tls is Tls.TLS else servers.imap
    return MailServer("imap", servers.host, port, tls, str(servers.ca_file))


def a_mail(*to: str, body: str = "Hello\n.\nS\u00e9bastien\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = BROKER, ", ".join(to), "Signature \u2014 MZP"
    message["Message-ID"] = "<one@credential-broker.invalid>"
    message.set_content(body, cte="quoted-printable")
    return message


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.TLS])
@pytest.mark.parametrize("auth", list(Auth))
def test_both_servers_take_every_login(mail_servers: MailServers, auth: Auth, tls: Tls) -> None:
    a_mailer(mail_servers, auth, tls).check()
    with imap_session(an_imap_server(mail_servers, tls), a_login(mail_servers, auth)) as session:
        assert session.select("INBOX", readonly=True)[0] == "OK"


def test_a_mail_arrives_as_it_was_written(mail_servers: MailServers) -> None:
    assert a_mailer(mail_servers).send(a_mail(DESK)) == ()
    arrived = mail_servers.arrived(DESK)
    assert (arrived["From"], arrived["To"]) == (BROKER, DESK)
    assert arrived["Message-ID"] == "<one@credential-broker.invalid>"
    assert arrived["Subject"] == "Signature \u2014 MZP"
    assert arrived.get_content() == "Hello\n.\nS\u00e9bastien\n"


def test_a_domain_of_other_letters(mail_servers: MailServers) -> None:
    """It is sent in ASCII, which needs nothing of the server."""
    sender, to = a_mailer(mail_servers), "desk@Példa.test"
    assert sender.send(new_mail(BROKER, to)) == ()
    assert mail_servers.arrived("desk@xn--plda-bpa.test")["To"] == "desk@xn--plda-bpa.test"


def test_a_name_of_other_letters(mail_servers: MailServers) -> None:
    """Postfix takes it by SMTPUTF8."""
    message = new_mail(BROKER, BUREAU)
    message.set_content("Hello\n")
    assert a_mailer(mail_servers).send(message) == ()
    assert mail_servers.arrived(BUREAU)["To"] == BUREAU


def test_a_name_of_other_letters_may_bounce(mail_servers: MailServers) -> None:
    """The mailbox behind Postfix does not take it, and a report in another form comes back (RFC 6533)."""
    message = new_mail(BUREAU, "büro@példa.test")
    message["Message-ID"] = "<two@credential-broker.invalid>"
    message.set_content("Hello\n")
    assert replace(a_mailer(mail_servers), sender=BUREAU).send(message) == ()
    report = mail_servers.arrived(BUREAU).as_bytes()
    [bounce] = read_mail(report, NOW).bounces
    assert (bounce.message_id, bounce.recipient) == ("<two@credential-broker.invalid>", "büro@xn--plda-bpa.test")
    assert bounce.status == "5.6.7"


def test_names_of_recipients_add_none(mail_servers: MailServers) -> None:
    """A name that looks like an address, or like several, is only a name."""
    message = a_mail(DESK)
    del message["To"]
    message["To"] = Address("Desk, other@partner.test <evil@partner.test>", addr_spec=DESK)
    message["Cc"] = Address("\u00c9quipe", addr_spec=BROKER)
    assert a_mailer(mail_servers).send(message) == ()
    mail_servers.arrived(DESK)
    assert mail_servers.arrived(BROKER)["Cc"] == f"\u00c9quipe <{BROKER}>"
    assert len(mail_servers.mails(BROKER)) == 1  # no bounce of another address


def test_a_mail_to_nobody_comes_back(mail_servers: MailServers) -> None:
    """Postfix takes it, and returns a report: this is how a wrong address looks in practice."""
    a_mailer(mail_servers).send(a_mail(NOBODY))
    bounce = mail_servers.arrived(BROKER)
    assert bounce.get_content_type() == "multipart/report"
    assert "one@credential-broker.invalid" in bounce.as_string()


def test_other_recipients_still_get_it(mail_servers: MailServers) -> None:
    assert a_mailer(mail_servers).send(a_mail(REFUSED, DESK)) == (REFUSED,)
    assert mail_servers.arrived(DESK)["To"] == f"{REFUSED}, {DESK}"


def test_refusals_are_told_apart(mail_servers: MailServers) -> None:
    def said(error: type[BrokerError], message: EmailMessage) -> str:
        with pytest.raises(error) as caught:
            a_mailer(mail_servers).send(message)
        return f"{caught.value.message}; {caught.value.hint}"

    assert f"refuses the recipient {REFUSED}: 550 5.1.1" in said(MailRefusedError, a_mail(REFUSED))
    assert f"does not take the recipient {GREYLISTED} now: 450" in said(MailUnavailableError, a_mail(GREYLISTED, DESK))
    assert "as too large: 552" in said(MailRefusedError, a_mail(DESK, body="x\n" * LARGEST))
    assert mail_servers.mails(DESK) == []


@pytest.mark.slow
@pytest.mark.parametrize("auth", list(Auth))
def test_wrong_login_is_named_without_secret(mail_servers: MailServers, auth: Auth) -> None:
    secret = WRONG if auth is Auth.PASSWORD else mail_servers.token(signer="another")
    login = Login(BROKER, auth, lambda: Secret(secret))
    for act in (
        replace(a_mailer(mail_servers), login=login).check,
        imap_session(an_imap_server(mail_servers, Tls.TLS), login).__enter__,
    ):
        with pytest.raises(WrongLoginError) as caught:
            act()
        assert f"rejected the login of {BROKER}" in caught.value.message
        assert secret not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.slow
def test_a_rejected_token_is_replaced_once(mail_servers: MailServers) -> None:
    """Each connection has a new token; one that was rejected is followed by one more."""
    given: list[str] = []

    def secret(*tokens: str) -> Callable[[], Secret[str]]:
        left = iter(tokens)

        def following() -> Secret[str]:
            given.append(next(left))
            return Secret(given[-1])

        return following

    bad, good = mail_servers.token(lifetime=-60), mail_servers.token()
    for auth in (Auth.XOAUTH2, Auth.OAUTHBEARER):
        given.clear()
        mailer = replace(a_mailer(mail_servers), login=Login(BROKER, auth, secret(bad, good, good, "unused")))
        mailer.check()
        mailer.check()
        assert given == [bad, good, good]
        given.clear()
        login = Login(BROKER, auth, secret(bad, good, "unused"))
        with imap_session(an_imap_server(mail_servers, Tls.TLS), login):
            assert given == [bad, good]
    given.clear()
    with pytest.raises(WrongLoginError):
        replace(a_mailer(mail_servers), login=Login(BROKER, Auth.XOAUTH2, secret(bad, bad, good))).check()
    assert given == [bad, bad]


def test_a_server_that_is_not_verified(mail_servers: MailServers, tmp_path: Path) -> None:
    """A wrong CA, another name: no login is sent."""
    other = tmp_path / "other.pem"
    other.write_text(a_ca("Other").pem)

    def secret() -> Secret[str]:
        raise AssertionError("a secret was asked for")

    login, mailer = Login(BROKER, Auth.PASSWORD, secret), a_mailer(mail_servers)
    for tls in (Tls.STARTTLS, Tls.TLS):
        smtp, imap = a_mailer(mail_servers, tls=tls).server, an_imap_server(mail_servers, tls)
        changes: list[Callable[[MailServer], MailServer]] = [
            lambda server: replace(server, ca_file=str(other)),
            lambda server: replace(server, ca_file=""),
            lambda server: replace(server, host="localhost"),
        ]
        for changed in changes:
            for act in (
                replace(mailer, server=changed(smtp), login=login).check,
                imap_session(changed(imap), login).__enter__,
            ):
                with pytest.raises(MailTlsError, match="cannot be verified"):
                    act()
