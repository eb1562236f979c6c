"""Mail servers on the command line: set, tested, and used to submit a signing request; refusals drafted."""

from __future__ import annotations

import email
import email.policy
import sys
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest

from broker.model.account import Account
from tests.support import pki
from tests.support.cli_harness import CliHarness
from tests.support.ended import Ended
from tests.support.mail_servers import BROKER, DESK, PASSWORD, REFUSED, TEAM, MailServers

pytestmark = [pytest.mark.slow, pytest.mark.peer("dovecot", "postfix"), pytest.mark.rights("chown")]
AWAY = 1  # a port on which nobody listens


@dataclass
class Sender:
    """A harness whose broker knows the mail servers: mail.toml is its configuration."""

    harness: CliHarness
    servers: MailServers

    def configure(self, auth: str = "password", port: int = 0) -> Sender:
        smtp = f'host = "{self.servers.host}"\nport = "{port or self.servers.smtp}"\nfrom = "{BROKER}"\n'
        imap = f'host = "{self.servers.host}"\nport = "{self.servers.imaps}"\n'
        login = f'user = "{BROKER}"\nauth = "{auth}"\nca_file = "{self.servers.ca_file}"\n'
        text = f"{(self.home / 'broker.toml').read_text()}\n[mail.smtp]\n{smtp}{login}\n[mail.imap]\n{imap}{login}"
        if auth != "password":
            code = f"print('{self.servers.token()}')"
            text += f'\n[mail.oauth]\ntoken_command = ["{sys.executable}", "-c", "{code}"]\n'
        (self.home / "mail.toml").write_text(text)
        return self

    def run(self, line: str, *, stdin: bytes = b"") -> Ended:
        return self.harness.run(line, input=stdin, env={"BROKER_CONFIG": "mail.toml"})

    def ok(self, line: str, *, stdin: bytes = b"") -> Ended:
        ended = self.run(line, stdin=stdin)
        assert ended.code == 0, f"broker {line}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    @property
    def home(self) -> Path:
        return self.harness.home

    @property
    def account(self) -> Account:
        return self.harness.account


@pytest.fixture
def bare(harness: CliHarness, mail_servers: MailServers) -> Sender:
    """An open request, and mail servers whose passwords nobody has set."""
    harness.put("requested")
    return Sender(harness, mail_servers).configure()


@pytest.fixture
def ready(bare: Sender) -> Sender:
    """An open request, mail servers, and their passwords in Vault."""
    for name in ("smtp", "imap"):
        bare.ok(f"mail set {name} --password-file -", stdin=PASSWORD.encode())
    bare.ok(f"account set acme --contact {DESK}")
    return bare


def test_both_servers_are_tested(ready: Sender, mail_servers: MailServers) -> None:
    ended = ready.ok("mail test -o json")
    assert ended.json == {"success": True, "servers": ["smtp", "imap"], "to": None}
    assert f"logged in as {BROKER}" in ended.err
    assert mail_servers.mails(TEAM) == []
    ready.ok(f"mail test --to {TEAM}")
    assert mail_servers.arrived(TEAM)["Auto-Submitted"] == "auto-generated"


def test_a_new_password_replaces_the_old_one(ready: Sender) -> None:
    assert ready.ok("mail set smtp --password-file - -o json", stdin=b"wr0ng-pl4nted").json["number"] == 2
    admin = ready.harness.saved.system.vault.admin
    assert [admin.versions(f"mail/smtp/{number}") for number in (1, 2)] == [{1: False}, {1: True}]
    ended = ready.run("mail test -o json")
    assert (ended.code, ended.json["code"]) == (5, "denied")
    assert "broker mail set smtp" in ended.json["hint"]
    assert "wr0ng-pl4nted" not in ended.out + ended.err
    ready.ok("mail set smtp --password-file -", stdin=PASSWORD.encode())
    ready.ok("mail test")


def test_tokens_need_no_password(bare: Sender) -> None:
    for auth in ("xoauth2", "oauthbearer"):
        bare.configure(auth=auth).ok("mail test")


def test_contradicting_settings_are_named(bare: Sender) -> None:
    bare.ok("config check")
    good = (bare.home / "mail.toml").read_text()
    for old, new, says in (
        (f'from = "{BROKER}"', "", "set from under [mail.smtp]"),
        (f'host = "{bare.servers.host}"', 'host = "mail.company.example"\ntls = "none"', "unencrypted"),
        (f'ca_file = "{bare.servers.ca_file}"', 'ca_file = "nowhere.pem"', "cannot be read"),
    ):
        (bare.home / "mail.toml").write_text(good.replace(old, new))
        ended = bare.run("config check")
        assert (ended.code, says in ended.err) == (2, True), ended.err


def test_a_missing_secret_is_named(bare: Sender) -> None:
    ended = bare.run("mail test")
    assert ended.code == 2
    assert "broker mail set smtp" in ended.err


def test_a_request_is_sent_once(ready: Sender, mail_servers: MailServers) -> None:
    for _ in range(2):
        ended = ready.ok("csr submit acme --via smtp -o json")
        (submission,) = ended.json["submissions"]
        assert (submission["via"], submission["to"]) == ("smtp", DESK)
    mail = mail_servers.arrived(DESK)
    assert mail["Message-ID"] == submission["message_id"]
    assert mail["X-Unsent"] is None
    assert len(mail_servers.mails(DESK)) == 1
    assert "was sent before" in ended.err
    assert "smtp" in ready.ok("csr show acme").err


def test_the_account_chooses_way_and_language(ready: Sender, mail_servers: MailServers) -> None:
    ready.ok("account set acme --submit-via smtp --language fr")
    shown = ready.ok("account show acme").out
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith(("submit via", "language"))] == [
        "smtp",
        "fr",
    ]
    ready.ok("csr submit acme")
    mail = mail_servers.arrived(DESK)
    assert mail["Subject"].startswith("Demande de signature")
    body = mail.get_body()
    assert body
    assert "Bonjour" in body.get_content()


def test_the_scheduler_sends_it_once(ready: Sender, mail_servers: MailServers) -> None:
    ended = ready.ok("rotation run --once -o json")
    assert mail_servers.mails(DESK) == [], ended.out  # by default a person sends the draft
    ready.ok("account set acme --submit-via smtp")
    for _ in range(2):
        ready.ok("rotation run --once")
    assert mail_servers.arrived(DESK)["Message-ID"] == ready.account.requests[0].submissions[0].message_id
    assert len(mail_servers.mails(DESK)) == 1


def test_the_draft_stays_the_default(ready: Sender, mail_servers: MailServers) -> None:
    ready.ok("csr submit acme --out acme.eml")
    assert b"X-Unsent: 1" in (ready.home / "acme.eml").read_bytes()
    assert mail_servers.mails(DESK) == []


def test_refused_and_away_leave_it_unsent(ready: Sender, mail_servers: MailServers) -> None:
    """Nothing is recorded as sent; the mail is fixed, and is sent as it is once the cause is removed."""
    ready.ok(f"account set acme --contact {REFUSED}")
    ended = ready.run("csr submit acme --via smtp -o json")
    assert (ended.code, ended.json["code"]) == (6, "refused")
    assert ready.account.requests[0].submissions == ()
    ended = ready.configure(port=AWAY).run("csr submit acme --via smtp -o json")
    assert (ended.code, ended.json["code"], ended.json["retryable"]) == (4, "mail-unavailable", True)


def test_a_person_confirms_what_a_person_does(ready: Sender) -> None:
    ended = ready.ok("csr submit acme --via manual --yes --reference T-1 -o json")
    (submission,) = ended.json["submissions"]
    assert (submission["via"], submission["to"], submission["reference"]) == ("manual", DESK, "T-1")
    assert "broker csr new acme --out acme-1.csr" in ended.err


def test_a_refusal_answers_the_request(ready: Sender, tmp_path: Path) -> None:
    """The reply has a certificate of another request: the partner is told, in the account's language."""
    ready.ok("csr submit acme --out acme.eml")
    ready.ok("account set acme --language fr")
    ended = ready.run(f"cert import acme {wrong_reply(ready)} --draft answer.eml")
    assert ended.code == 6
    assert "mail draft answer.eml" in ended.err
    mail = email.message_from_bytes((ready.home / "answer.eml").read_bytes(), policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    (sent,) = ready.account.requests[0].submissions
    assert mail["In-Reply-To"] == mail["References"] == sent.message_id
    assert (mail["To"], mail["X-Unsent"]) == (DESK, "1")
    assert mail["Subject"].startswith("Re: Demande de signature")
    body = mail.get_content()
    assert "Nous ne pouvons pas l'utiliser" in body
    assert "- le certificat n'est pas pour la clé de notre demande" in body
    assert ready.account.requests[0].closed is None


def test_our_own_decision_is_not_for_the_partner(ready: Sender) -> None:
    """A CA that nobody accepted yet is a question to us: no mail is written."""
    ended = ready.run("cert import acme reply.zip --draft answer.eml")
    assert ended.code == 6
    assert "the partner has nothing to correct" in ended.err
    assert not (ready.home / "answer.eml").exists()


def wrong_reply(sender: Sender) -> str:
    """Return a file with a certificate of another key."""
    (sender.home / "wrong.pem").write_text(pki.pem(pki.a_leaf(pki.a_ca())))
    return "wrong.pem"
