"""Every verb, well and badly used, with marked secrets; and then everything that was left is searched for them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from partner_standin import Standin

from broker.embedded.config import Options
from broker.embedded.up import administered
from broker.model.names import AccountName
from broker.model.role import Role
from broker.vault import layout
from tests.support import mail_servers, pki
from tests.support.catalogue import SOON
from tests.support.console import commands
from tests.support.https_server import token_endpoint
from tests.support.leaks import CHANNELS, Watch
from tests.support.outside import made_outside
from tests.support.replicas import replicas
from tests.support.system import LOGIN, PASSWORD, SUBJECT, made_system
from tests.support.vault import mounted, throwaway
from tests.support.webhook_server import OK, WebhookServer, webhook_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
WRONG = 'wr0ng&"Pässword\\ /+='
OPENING = "0pens-the-old-key"
OUTSIDE = "pl4nted-outside/+="
CLIENT = "cl1ent-pl4nted/+="
WRONG_MAIL = "wr0ng-m4il-pl4nted"
HMAC = "hm4c-pl4nted-key/+="
NEW = "n3w-Pa§s'word%2F+2"
NOT_RUN = {("demo",), ("serve",)}  # plays the verbs below, on its own secrets; tests/service searches the service's log


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    """A system in which every verb has been run."""
    with ExitStack() as stack:
        embedded = stack.enter_context(throwaway(Options(audit=True)))
        vault = stack.enter_context(mounted((embedded, stack.enter_context(administered(embedded)))))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        partner = stack.enter_context(Standin(folder / "partner", accounts={LOGIN: PASSWORD}))
        system = stack.enter_context(made_system(vault, partner))
        watched = Watch(system, embedded.running.home.audit_log)
        (system.home / "tmp").mkdir()
        system.environment |= {
            "TMPDIR": str(system.home / "tmp"),
            "BROKER_LOG_LEVEL": "debug",
            "BROKER_LOG_FORMAT": "json",
        }
        mark_what_was_given(watched)
        register(watched)
        mail(watched)
        request_and_receive(watched)
        rotate(watched)
        bring_in(watched)
        issue(watched)
        follow(watched)
        look(watched)
        arrive(watched)
        tell(watched, stack.enter_context(webhook_server(folder)))
        leave(watched)
        own_vault(watched)
        mark_what_was_made(watched)
        yield watched


def mark_what_was_given(watch: Watch) -> None:
    for name, secret in (("password", PASSWORD), ("wrong password", WRONG), ("new password", NEW)):
        watch.mark(name, secret)
    for role in Role:
        file = watch.system.home / "roles" / role.value / "secret_id"
        watch.mark(f"secret-id of {role.value}", file.read_bytes())
        watch.expected.add(file)


def mark_what_was_made(watch: Watch) -> None:
    admin = watch.system.vault.admin
    slots = admin.list("keys/acme")
    assert len(slots) >= 2
    for slot in slots:
        stored = admin.read_or_none(f"keys/acme/{slot}")
        if stored is None:  # destroyed, as it should be once its generation is over
            continue
        key = load_der_private_key(base64.b64decode(stored.data["value"]["pkcs8"]), None)
        assert isinstance(key, RSAPrivateKey)
        numbers = key.private_numbers()
        for name, number in (("p", numbers.p), ("q", numbers.q), ("d", numbers.d)):
            watch.mark(f"{name} of key {slot}", number.to_bytes((number.bit_length() + 7) // 8)[:48])
    lease = admin.read(layout.signer("lease")).data["value"]["keys"]["1"]
    watch.mark("key that signs leases", base64.b64decode(lease))
    watch.mark("key that signs evidence", base64.b64decode(admin.read(layout.signer("anchor")).data["value"]["seed"]))


def register(watch: Watch) -> None:
    partner = watch.system.partner
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    add = ["account", "add", "acme", "--environment", "stand-in", "--login", LOGIN, "--contact", "desk@partner.example"]
    watch.run("init", "--vault", "https://vault.example:8200", "--out", "other.toml")
    watch.run("config", "show")
    watch.run("config", "check")
    watch.run("partner", "list")
    watch.run("partner", "show", "stellantis")
    watch.run("partner", "add", "gone.toml", code=2)
    watch.run(*add, "--base-url", partner.api_url, *subject)
    watch.run(*add, "--base-url", "https://elsewhere.example/v3", *subject, code=8)
    watch.run("account", "set", "acme", "--renew-before", "30d", "--team", "ops@acme.example")
    watch.run("password", "set", "acme", "--password-file", "-", input=f"{WRONG}\nsecond line\n", code=2)
    watch.run("password", "set", "nobody", "--password-file", "-", input=WRONG, code=2)
    watch.run("password", "set", "acme", code=2)
    watch.run("password", "set", "acme", "--password-file", "-", input=PASSWORD)
    watch.run("app", "add", "acme/reporting")
    watch.run("app", "add", "acme/second")
    watch.run("app", "set", "acme/second", "--client-id", "22222222-2222-4222-8222-222222222222")
    watch.run("app", "list", "acme")
    watch.run("app", "remove", "acme/second", "--yes")


def mail(watch: Watch) -> None:
    """Log in and send at real mail servers, with a password and a token; also wrongly. Without them, only store."""
    for name, secret in (
        ("mail password", mail_servers.PASSWORD),
        ("mail client", CLIENT),
        ("mail, wrong", WRONG_MAIL),
    ):
        watch.mark(name, secret)
    watch.run("mail", "set", "smtp", "--password-file", "-", input=WRONG_MAIL)
    watch.run("mail", "set", "imap", "--password-file", "-", input=mail_servers.PASSWORD)
    watch.run("mail", "set", "oauth", "--password-file", "-", input=CLIENT)
    watch.run("mail", "test", code=2)
    if not shutil.which("dovecot", path=mail_servers.PATH) or os.geteuid():
        return
    home = watch.system.home
    plain = (home / "broker.toml").read_text()
    with mail_servers.running() as servers, tempfile.TemporaryDirectory() as folder:
        token = servers.token()
        watch.mark("mail token", token)
        with token_endpoint(Path(folder), {"access_token": token}) as (url, _):
            oauth = f'[mail.oauth]\ntoken_url = "{url}"\nclient_id = "broker"\nca_file = "{folder}/ca.crt"\n'
            login = f'user = "{mail_servers.BROKER}"\nca_file = "{servers.ca_file}"\nhost = "{servers.host}"\n'
            for auth in ("password", "xoauth2"):
                smtp = f'[mail.smtp]\nport = "{servers.smtp}"\nfrom = "{mail_servers.BROKER}"\nauth = "{auth}"\n{login}'
                imap = f'[mail.imap]\nport = "{servers.imaps}"\nauth = "{auth}"\n{login}'
                (home / "broker.toml").write_text(f"{plain}\n{smtp}\n{imap}\n{oauth}")
                if auth == "password":
                    watch.run("mail", "test", code=5)
                    watch.run("mail", "set", "smtp", "--password-file", "-", input=mail_servers.PASSWORD)
                watch.run("mail", "test", "--to", mail_servers.DESK)
                watch.run("-vv", "mail", "test", "-o", "json")
    (home / "broker.toml").write_text(plain)


def request_and_receive(watch: Watch) -> None:
    system = watch.system
    watch.run("csr", "new", "acme", "--out", "acme.csr")
    watch.run("csr", "show", "acme")
    watch.run("csr", "lint", "acme.csr", "--login", LOGIN)
    watch.run("csr", "cancel", "acme", "--yes")
    watch.run("csr", "new", "acme")
    watch.run("csr", "new", "acme", "--reuse-key", code=6)
    watch.run("csr", "refused", "acme", "--reason", "wrong O", "--yes")
    watch.run("csr", "new", "acme")
    watch.run("csr", "submit", "acme")
    reply = system.reply()
    watch.run("cert", "inspect", reply.name, "-o", "json")
    watch.run("cert", "import", "acme", reply.name, code=6)
    watch.run("cert", "import", "acme", "broker.toml", code=2)
    watch.run("cert", "import", "acme", reply.name, *system.accepting(), "--client-id-for", "reporting")
    watch.run("trust", "set", "acme", reply.name, code=6)
    watch.run("trust", "set", "acme", reply.name, "--accept-ca", str(system.partner.described()["server_ca_sha256"]))


def rotate(watch: Watch) -> None:
    watch.run("explain", "acme")
    watch.run("rotation", "canary", "acme")
    watch.run("rotation", "promote", "acme")
    watch.run("rotation", "run", "--once")
    watch.run("password", "set", "acme", "--password-file", "-", input=NEW)
    watch.run("rotation", "canary", "acme", "--generation", "2", "-o", "json", code=6)  # the partner does not know it
    watch.run("rotation", "status", "acme")
    watch.run("rotation", "rehearse", "acme")
    watch.run("rotation", "plan", "acme")
    watch.run("needs-renewal", "acme", code=1)
    watch.run("rotation", "snooze", "acme", "--until", SOON, "--reason", "holidays")
    watch.run("rotation", "snooze", "acme", "--end")
    watch.run("rotation", "reject", "acme", "--generation", "2", "--reason", "not the partner's password", "--yes")
    watch.run("rotation", "rollback", "acme", code=6)


def bring_in(watch: Watch) -> None:
    """Import a set whose key, login and password lie outside; also badly: another passphrase, another CA."""
    system = watch.system
    made = made_outside(system.partner)
    key = load_pem_private_key(made.key, None)
    assert isinstance(key, RSAPrivateKey)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(OPENING.encode()))
    watch.mark("passphrase", OPENING)
    watch.mark("outside password", OUTSIDE)
    watch.mark("d of the outside key", key.private_numbers().d.to_bytes(256)[:48])
    files = {"old.key": encrypted, "old.crt": made.certificate + made.cas, "opening": OPENING.encode()}
    files["old.json"] = json.dumps(
        {"login": LOGIN, "password": OUTSIDE, "k": base64.b64encode(made.key).decode()}
    ).encode()
    for name, content in files.items():
        (system.home / name).write_bytes(content)
        watch.expected.add(system.home / name)
    url = ["--environment", "stand-in", "--base-url", system.partner.api_url, "--yes"]
    given = ["account", "import", "old", "old.key", "old.crt", "old.json", *url]
    watch.run(*given, code=2)
    watch.run(*given, "--passphrase-file", "old.json", code=2)
    watch.run(*given, "--passphrase-file", "opening", code=6)
    watch.run(*given, "--passphrase-file", "opening", *system.accepting(), "--dry-run", "-o", "json")
    called = ["--client-id-for", f"reporting={made.client_id}", "--held-by", "web-1"]
    watch.run(*given, "--passphrase-file", "opening", *system.accepting(), *called, code=6)  # the partner knows another
    watch.run("rotation", "returned", "old", "--held-by", "web-1")
    watch.run("account", "import", "old", "--from-kv", "secret/old", code=5)


def issue(watch: Watch) -> None:
    system = watch.system
    token = system.consumer("acme/reporting")
    other = system.consumer("acme/other", name="other")
    for file in (token, other):
        watch.mark(f"token of {file.stem}", file.read_bytes())
        watch.expected.add(file)
    target = system.home / "bundle"
    watch.expected.add(target)
    get = ["bundle", "get", "acme/reporting", "--to", str(target), "--consumer-token-file"]
    every = [part for name in ("curl.conf", "env", "keystore.p12", "truststore.p12") for part in ("--format", name)]
    watch.run(*get, token.name, *every)
    watch.run(*get, token.name, "-o", "json")
    watch.run(*get, other.name, code=5)
    watch.run("request", "acme/reporting", "GET", "/fleets", "-i", "--consumer-token-file", token.name)
    watch.run("exec", "acme/reporting", "--consumer-token-file", token.name, "--", "env")
    watch.run(*get, "-", input="s.thisTokenIsNobodys0123456789", code=5)
    watch.run("policy", "render", "web", "--right", "acme/reporting", "--script")
    watch.run("policy", "check", "acme/reporting", "--token-file", token.name)
    watch.run("policy", "check", "acme/reporting", "--token-file", other.name, code=5)
    watch.run("rotation", "retire", "acme", "--generation", "2")
    watch.run("password", "rotate", "acme", "--done", "asked", code=6)
    watch.run("password", "rotate", "acme")
    watch.run("password", "set", "acme", "--password-file", "-", input=NEW)
    watch.run("password", "rotate", "acme", "--abort", "--reason", "over")
    watch.run("csr", "new", "acme", "--compromised", "--serving", "keep", "--reason", "stolen")
    watch.run("rotation", "revoked", "acme", "--generation", "1", code=6)


def follow(watch: Watch) -> None:
    """Let an agent write the files of a bundle, from a service; and get one, whose lease stays in its directory."""
    system = watch.system
    directory, fetched = system.home / "agent", system.home / "fetched"
    watch.expected |= {directory, fetched}
    with (system.home / "broker.toml").open("a") as file:
        file.write(f'\n[[bundles]]\napplication = "acme/reporting"\ndirectory = "{directory}"\n')
    with replicas(system, 1) as services:
        auth = f"token-file:{system.home / 'reader.token'}"
        system.changes = {"BROKER_ADDR": services.addresses[0], "BROKER_AUTH": auth}
        watch.run("agent", "--once", "-o", "json")
        watch.run("bundle", "get", "acme/reporting", "--to", str(fetched))
        (row,) = json.loads((fetched / "lease.json").read_text())["rows"]
        watch.mark("text of a lease", row["text"])
        for verb in ("show", "renew", "revoke"):
            watch.run("lease", verb, str(fetched), "-o", "json")
        system.changes = {}
    assert (directory / "current" / "tls.key").exists()


def look(watch: Watch) -> None:
    for noun in ("show", "list"):
        watch.run("account", noun, *(["acme"] if noun == "show" else []))
    watch.run("lease", "list", "acme")
    watch.run("lease", "show", "0" * 32, code=2)
    watch.run("lease", "key", "rotate")
    watch.run("evidence", "holders", "acme", "-o", "csv")
    watch.run("evidence", "anchor")
    watch.run("evidence", "show", "--all", "-o", "json")
    watch.run("evidence", "verify", "--all")
    watch.run("evidence", "export", "all.jsonl", "--key-to", "anchor.pem")
    watch.run("evidence", "verify", "--file", "all.jsonl", "--key", "anchor.pem")
    watch.run("status")
    watch.run("vault", "status")
    watch.run("vault", "env")
    watch.run("nonsense", code=2)


def arrive(watch: Watch) -> None:
    """A mail that nobody should send: with a private key, and a link that holds a token."""
    secret, token = pki.run("openssl", "genpkey", "-algorithm", "RSA").decode(), "l1nk-pl4nted-t0ken"
    watch.mark("key in a mail", "".join(secret.splitlines()[3:6]))
    watch.mark("link in a mail", token)
    text = f"The certificate of {LOGIN} expires: https://desk.example/{token}?t={token}\n\n{secret}"
    with tempfile.TemporaryDirectory() as folder:
        mail = Path(folder) / "mail.eml"
        mail.write_text(f"From: desk@partner.example\nMessage-ID: <1@partner.example>\nSubject: Soon\n\n{text}")
        os.utime(mail, (0, 0))
        with watch.system.broker(settings={"replies.folder": folder}) as broker:
            broker.arriving.poll()
            ((_, one),) = broker.arriving.waiting([AccountName("acme")])
    watch.run("reply", "list")
    watch.run("reply", "show", f"acme/{one.id}")
    watch.run("reply", "dismiss", f"acme/{one.id}", "--reason", "a test")
    watch.run("cert", "import", "acme", "--reply", f"acme/{one.id}", code=6)


def tell(watch: Watch, server: WebhookServer) -> None:
    """A test of the webhook, signed with a key from Vault; and one whose server repeats what it got."""
    watch.mark("key of the webhook", HMAC)
    with (watch.system.home / "broker.toml").open("a") as file:
        lines = [f'webhook = "{server.url}"', f'webhook_ca_file = "{server.ca_file}"', "webhook_loopback = true"]
        file.write("\n".join(["", "[notify]", *lines, ""]))
    watch.run("mail", "set", "webhook", "--password-file", "-", input=HMAC)
    watch.run("mail", "set", "webhook", code=2)
    watch.run("notify", "test", "webhook", "-o", "json")
    server.answer = f"HTTP/1.1 500 {HMAC}\r\n\r\n{HMAC}".encode()
    watch.run("notify", "test", "webhook", code=4)
    watch.run("notify", "test", "--all", code=2)
    watch.run("notify", "list")
    watch.run("mail", "test", code=2)
    server.answer = OK
    watch.run("rotation", "run", "--once", code=None)
    assert all(HMAC.encode() not in call.body and HMAC not in str(call.headers) for call in server.calls)
    assert len(server.calls) >= 3


def leave(watch: Watch) -> None:
    reader = f"{watch.system.vault.settings.mount}/reader"
    watch.run("account", "suspend", "acme", "--reason", "over")
    watch.run("account", "resume", "acme")
    watch.run("lease", "revoke", "--consumer", reader, "--reason", "over")
    watch.run("account", "remove", "acme", "--yes", code=7)
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    url = watch.system.partner.api_url
    watch.run("account", "add", "brief", "--environment", "stand-in", "--login", LOGIN, "--base-url", url, *subject)
    watch.run("account", "remove", "brief", "--yes")


def own_vault(watch: Watch) -> None:
    """The verbs of the embedded vault, on one in the system's own home."""
    system = watch.system
    kept = dict(system.environment)
    home = system.home / ".local" / "state" / "credential-broker" / "vault"
    for name in ("VAULT_ADDR", "BROKER_CONFIG", "BROKER_MOUNT"):
        del system.environment[name]
    (system.home / "broker.toml").rename(system.home / "kept.toml")
    try:
        watch.run("vault", "start", "--audit")
        for file in (home / "unseal.key", home / "setup.secret", *home.glob("roles/*/secret_id")):
            watch.mark(str(file.relative_to(home)), file.read_bytes())
            watch.expected.add(file)
        watch.run("vault", "setup", "--dry-run")
        watch.run("vault", "enrol", "job", "--right", "acme/job", "--login-dir", "job", code=2)
        watch.run("doctor", code=None)
    finally:
        watch.run("vault", "stop")
        (system.home / "kept.toml").rename(system.home / "broker.toml")
        system.environment.update(kept)


def test_every_verb_was_run(watch: Watch) -> None:
    assert {tuple(name.split()) for name, _ in commands()} - watch.ran == NOT_RUN


@pytest.mark.parametrize("channel", CHANNELS)
def test_no_secret_is_in(watch: Watch, channel: str) -> None:
    searched, found = watch.searched(channel)
    assert not found
    assert searched > 500, "a search of nothing finds nothing"


LEAK = "import os, sys, time; {}; time.sleep(0.1)"


def leak_into(watch: Watch, channel: str, secret: str) -> None:
    """Put `secret` into a place that must not hold one."""
    system = watch.system
    if channel == "output":
        watch.watched([sys.executable, "-c", LEAK.format("print(sys.stdin.read(), file=sys.stderr)")], "leak", secret)
    elif channel == "processes":
        watch.watched([sys.executable, "-c", LEAK.format("pass"), secret], "leak")
    elif channel == "vault":
        system.vault.admin.create("evidence/issued/leak/00000001", {"oops": secret})
    elif channel == "files":
        (system.home / "tmp" / "leak").write_text(secret)
    elif channel == "audit":
        with watch.audit_log.open("a") as file:
            file.write(secret)
    else:
        watch.seen["partner"].append(("leak", secret.encode()))


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_leak_on_purpose_is_found(watch: Watch, channel: str) -> None:
    """The control: the searches above would have found one."""
    secret = f"planted in {channel} {os.urandom(8).hex()}"
    watch.mark("planted", secret)
    assert not watch.searched(channel)[1]
    leak_into(watch, channel, secret)
    found = watch.searched(channel)[1]
    assert found
    assert all("planted" in line for line in found)


def test_planted_secrets_are_in_place(watch: Watch) -> None:
    """The other control: the marks are those of the real secrets."""
    admin, bundle = watch.system.vault.admin, watch.system.home / "bundle" / "current"
    marks = {mark.name: mark for mark in watch.marks}
    assert marks["password"].found_in((bundle / "password").read_bytes())
    with watch.system.broker() as broker:
        current = broker.account(AccountName("acme")).current
    assert current
    slot = current.parts.key.rpartition(":")[2]
    assert "base64" in marks[f"p of key {slot}"].found_in((bundle / "tls.key").read_bytes())
    assert "base64" in marks[f"p of key {slot}"].found_in(str(admin.read(f"keys/acme/{slot}").data).encode())
