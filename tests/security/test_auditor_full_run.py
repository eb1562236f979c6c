"""The main job, all of it, on a vault with an audit log; then the auditor reads what really happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from partner_standin import Standin

from broker.compose.graph import Broker, Wiring
from broker.embedded.config import Options
from broker.embedded.up import administered
from broker.errors import UnknownNameError
from broker.model.lease import Caller
from broker.model.names import account_name
from broker.model.role import Role
from broker.model.secret import Secret
from broker.partners.catalogue import builtin_source, load
from broker.vault.connection import Phase
from broker.vault.layout import right
from broker.vault.profiles import StoredProfiles
from tests.support import mail_servers
from tests.support.audited import ROOT, Run, kept
from tests.support.mail_servers import BROKER, TEAM
from tests.support.outside import made_outside, zipped
from tests.support.proxy import Cue, Fault, proxied
from tests.support.system import LOGIN, PASSWORD, SUBJECT, System, made_system
from tests.support.vault import mounted, throwaway

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.peer("dovecot", "postfix"),
    pytest.mark.rights("chown"),
]

NEWER: Final = "a-newer-pl4nted-password"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("run")
    with (
        throwaway(Options(audit=True)) as embedded,
        administered(embedded) as admin,
        mounted((embedded, admin)) as vault,
        Standin(directory / "partner", accounts={LOGIN: PASSWORD}) as partner,
        made_system(vault, partner) as system,
    ):
        _play(system)
        yield kept(embedded, vault.admin, directory)


def _play(system: System) -> None:
    _open(system)
    _first_certificate(system)
    _sweep(system)
    _bundles(system)
    _second_certificate(system)
    _new_password(system)
    _another_secret(system)
    _bring_in(system)
    _two_at_once(system)
    _miss_a_profile(system)
    _serve(system)
    _look(system)
    _mail(system)


def _open(system: System) -> None:
    """Add an account with a custom profile, since only these are read from Vault."""
    own = builtin_source("stellantis").replace('name = "stellantis"', 'name = "mine"')
    for title in ("Ours", "Ours, again"):
        file = system.home / "mine.toml"
        file.write_text(own.replace("Stellantis Fleet Owner API (B2B)", title))
        system.ok("partner", "add", str(file))
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    system.ok(
        "account", "add", "acme", "--profile", "mine", "--environment", "stand-in", "--base-url",
        system.partner.api_url, "--login", LOGIN, "--contact", "desk@partner.example", *subject,
    )  # fmt: skip
    system.ok("password", "set", "acme", "--password-file", "-", input=PASSWORD)
    for name in ("reporting", "spare"):
        system.ok("app", "add", f"acme/{name}")
    system.ok("app", "remove", "acme/spare", "--yes")


def _first_certificate(system: System) -> None:
    system.ok("csr", "new", "acme")
    system.ok("csr", "cancel", "acme", "--yes")
    system.ok("csr", "new", "acme", "--out", "acme.csr")
    system.ok("csr", "submit", "acme", "--out", "acme.eml")
    reply = system.reply()
    assert system.run("cert", "import", "acme", str(reply)).code == 6  # the CA is not accepted yet
    system.ok("cert", "import", "acme", str(reply), *system.accepting(), "--client-id-for", "reporting")
    system.ok("rotation", "canary", "acme", "--generation", "1")
    system.ok("rotation", "promote", "acme")


def _sweep(system: System) -> None:
    """Sweep while the account is idle, and then with a request that fails in two ways."""
    system.ok("rotation", "run", "--once")
    system.ok("csr", "new", "acme")
    for way in ("vault-pki", "smtp"):
        system.ok("account", "set", "acme", "--submit-via", way)
        assert system.run("rotation", "run", "--once").code == 6
    system.ok("reply", "list")
    system.ok("account", "set", "acme", "--submit-via", "eml")
    system.ok("csr", "cancel", "acme", "--yes")


def _bundles(system: System) -> None:
    """Issue two first bundles concurrently; one is held until its lease ends, with a renewed token."""
    token = system.home / "reader.token"
    path = right("mine", "stand-in", "acme", "reporting")
    token.write_text(system.vault.consumer_token("reader", path).reveal())
    get = ("bundle", "get", "acme/reporting", "--consumer-token-file", str(token))
    with interposed(system, "data/signers/lease", lambda: system.ok(*get, "--to", "first")) as broker:
        broker.issuing.issuer(Caller(Secret(token.read_text())))
    server = f"auth/{system.vault.settings.mount}/role/server"
    system.vault.admin.call("POST", server, {"token_ttl": 15})
    system.ok(*get, "--to", "held", "--ttl", "11s", "--hold")
    with proxied(system.vault.settings.address, lambda _: None) as proxy:
        proxy.plan(Cue(Fault.LOST, "POST", ".*/data/evidence/issued/.*"))
        system.changes = {"VAULT_ADDR": proxy.address}
        system.ok(*get, "--to", "lost")
        system.changes = {}
    none = system.home / "none.token"
    none.write_text(system.vault.consumer_token("nobody", path.replace("reporting", "other")).reveal())
    assert system.run(*get[:-1], str(none), "--to", "denied").code == 5


def _second_certificate(system: System) -> None:
    system.ok("csr", "new", "acme")
    system.ok("csr", "submit", "acme", "--sent-at", datetime.now(UTC).isoformat(), "--reference", "T-1")
    system.ok("cert", "import", "acme", str(system.reply()))
    system.ok("rotation", "promote", "acme")
    system.ok("rotation", "rollback", "acme")
    system.ok("rotation", "promote", "acme", "--generation", "2")
    assert system.run("csr", "new", "acne").code == 2  # did you mean acme?
    waiting = system.run("rotation", "retire", "acme", "--generation", "1")
    assert waiting.code == 7  # it is held
    lease = waiting.err.partition("(lease ")[2].partition(" ")[0]
    system.ok("lease", "revoke", lease, "--reason", "its host is gone")
    for _ in range(2):
        system.ok("lease", "key", "rotate", "--again")
    system.ok("rotation", "retire", "acme", "--generation", "1", "--force", "--reason", "the run must go on")


def _new_password(system: System) -> None:
    system.ok("password", "set", "acme", "--password-file", "-", input="wrong-pl4nted")
    assert system.run("rotation", "promote", "acme").code == 6  # the partner knows no such password
    system.ok("rotation", "reject", "acme", "--generation", "3", "--reason", "mistyped", "--yes")
    system.partner.registry.set_password(LOGIN, NEWER, overlap=True)
    system.ok("password", "set", "acme", "--password-file", "-", input=NEWER)
    system.ok("rotation", "promote", "acme")
    system.ok("rotation", "retire", "acme", "--generation", "3")


def _two_at_once(system: System) -> None:
    """Run another command in between, so that a write finds an existing document."""
    name = account_name("acme")
    sent = ("csr", "submit", "acme", "--out", "later.eml")
    with interposed(system, "data/evidence/accounts/acme", lambda: system.ok(*sent)) as broker:
        broker.rotation.draft(name)
    with interposed(system, "data/evidence/accounts/acme", lambda: system.ok("app", "add", "acme/late")) as broker:
        broker.registry.set_application(name, "reporting", "44444444-4444-4444-8444-444444444444")
    again = ("password", "set", "acme", "--password-file", "-")
    with interposed(system, "data/passwords/acme", lambda: system.ok(*again, input="one-pl4nted")) as broker:
        broker.registry.set_secret(name, Secret("two-pl4nted"))
    for path in ("data/signers/anchor", "data/evidence/heads/0"):
        system.ok("app", "set", "acme/late", "--client-id", f"33333333-3333-4333-8333-{len(path):012d}")
        with interposed(system, path, lambda: system.ok("evidence", "anchor")) as broker:
            broker.anchor()


def _another_secret(system: System) -> None:
    """Set a named secret twice concurrently, which no command does yet; the newer goes into a bundle."""
    name, hmac = account_name("acme"), "hmac"

    def first() -> None:
        with system.broker() as other:
            other.registry.set_secret(name, Secret("hmac-one-pl4nted"), hmac)

    with interposed(system, "data/secrets/acme", first) as broker:
        account = broker.registry.set_secret(name, Secret("hmac-two-pl4nted"), hmac)
    system.ok("rotation", "promote", "acme")
    token = str(system.home / "reader.token")
    system.ok("bundle", "get", "acme/reporting", "--consumer-token-file", token, "--to", "another")
    (overtaken,) = [g.number for g in account.generations if g.parts.secrets.get(hmac) == 1]
    system.ok("rotation", "retire", "acme", "--generation", str(overtaken))


def _bring_in(system: System) -> None:
    """Import an account that exists; a copy of its key outside is noted, and gone."""
    made = made_outside(system.partner)
    (system.home / "old.zip").write_bytes(zipped({**made.files, "password": NEWER.encode()}))
    system.ok(
        "account", "import", "old", "old.zip", "--environment", "stand-in", "--base-url", system.partner.api_url,
        *system.accepting(), "--client-id-for", "reporting", "--held-by", "web-1", "--yes",
    )  # fmt: skip
    system.ok("rotation", "returned", "old", "--held-by", "web-1")


def _miss_a_profile(system: System) -> None:
    """Each role that reads a profile looks for a similar name if there is none."""
    with system.broker() as broker:
        for role in (Role.ROTATOR, Role.CANARY, Role.SERVER):
            with pytest.raises(UnknownNameError, match="there is no profile"):
                load("mime", StoredProfiles(broker.roles.connection(role)))


def _serve(system: System) -> None:
    """Read what a service reads in the background; `test_server_day` runs a whole service."""
    with system.broker() as broker:
        assert broker.issuing.waits.documents.changes().number
        assert broker.roles.accounts(Role.SERVER).names()


def _mail(system: System) -> None:
    """Notify the team by mail, and read the mailbox: when it is empty, and after a mail about the account."""
    with mail_servers.running() as servers:
        own = [f'host = "{servers.host}"', f'user = "{BROKER}"', f'ca_file = "{servers.ca_file}"']
        lines = ["", "[mail.smtp]", *own, f'port = "{servers.smtp}"', f'from = "{BROKER}"']
        lines += ["[mail.imap]", *own, f'port = "{servers.imap}"', 'tls = "starttls"', ""]
        with (system.home / "broker.toml").open("a") as file:
            file.write("\n".join(lines))
        for server in ("smtp", "smtp", "imap"):
            system.ok("mail", "set", server, "--password-file", "-", input=mail_servers.PASSWORD)
        system.ok("account", "set", "acme", "--team", TEAM)
        for _ in range(2):
            system.ok("notify", "test", "--all")
            system.run("rotation", "run", "--once")
            servers.put(BROKER, b"From: desk@partner.example\r\nSubject: acme\r\n\r\nabout " + LOGIN.encode())
        system.ok("notify", "list")


def _look(system: System) -> None:
    for file in (system.home / "roles").glob("*/*"):
        file.chmod(0o600)
    for command in (
        "status", "doctor", "explain acme", "config check", "vault status", "account list", "account show acme",
        "app list acme", "partner list", "partner show mine", "csr show acme", "rotation status acme",
        "evidence show --all", "evidence verify --all", "evidence export all.jsonl",
    ):  # fmt: skip
        system.ok(*command.split())


@contextmanager
def interposed(system: System, path: str, action: Callable[[], object]) -> Iterator[Broker]:
    """Yield a broker in this process; before its first write to `path`, `action` runs."""
    todo = [action]

    def observer(phase: Phase, written: str) -> None:
        if phase is Phase.BEFORE and path in written and todo:
            todo.pop()()

    with system.broker(Wiring(observer=observer)) as broker:
        yield broker
    assert not todo, f"nothing was written to {path}"


def test_every_role_needs_exactly_its_row(run: Run) -> None:
    """That no grant is unused is measured here, on a run that goes everywhere: a demonstration does not."""
    assert run.audited("--grants", "policies") == (0, "")


@pytest.mark.deep
def test_demo_did_nothing_forbidden(tmp_path: Path) -> None:
    played = [sys.executable, "-m", "tests.support.audited", str(tmp_path)]
    done = subprocess.run(played, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run("credential-broker", tmp_path / "audit.log", tmp_path / "documents.json")
    code, found = run.audited()
    assert (code, found.count("\n")) == (1, 1), found
    tried = "read credential-broker/data/passwords/acme/1 (denied)"  # to show that the application's token may not
    assert found.startswith("a consumer")
    assert tried in found
    assert "accounts/acme" in json.loads(run.documents.read_text())


def test_every_role_was_at_work(run: Run) -> None:
    """Else the test above would praise the idle."""
    log = run.log.read_text()
    for role in Role:
        assert f'"{run.mount}/{role.value}"' in log


def test_no_secret_is_in_the_log_in_clear(run: Run) -> None:
    log = run.log.read_text() + run.documents.read_text()
    for secret in (PASSWORD, NEWER, "one-pl4nted", "wrong-pl4nted", "hmac-one-pl4nted"):
        assert secret not in log
        assert json.dumps(secret) not in log


def test_a_stage_turned_by_hand_is_seen(run: Run, tmp_path: Path) -> None:
    documents = json.loads(run.documents.read_text())
    generations = documents["accounts/acme"]["value"]["generations"]
    generations[0]["stage"] = "previous"
    edited = tmp_path / "documents.json"
    edited.write_text(json.dumps(documents))
    code, found = Run(run.mount, run.log, edited).audited()
    assert code == 1
    assert "its stages are" in found


def test_role_reading_one_key_more_is_found(run: Run, tmp_path: Path) -> None:
    answers = (json.loads(line) for line in run.log.read_text().splitlines() if '"response"' in line)
    by_auditor = [f"{run.mount}/auditor", f"{run.mount}/base"]
    entry = next(
        e for e in answers if (e.get("auth") or {}).get("policies") == by_auditor and "/data/" in e["request"]["path"]
    )
    entry["request"] |= {"operation": "read", "path": f"{run.mount}/data/keys/acme/1"}
    planted = tmp_path / "audit.log"
    planted.write_text(f"{run.log.read_text()}{json.dumps(entry)}\n")
    code, found = Run(run.mount, planted, run.documents).audited()
    assert code == 1
    assert found == f"outside its row: auditor: read {run.mount}/data/keys/acme/1\n"


def test_policy_with_one_grant_more_is_found(run: Run, tmp_path: Path) -> None:
    for file in (ROOT / "policies").glob("*.hcl"):
        (tmp_path / file.name).write_text(file.read_text())
    with (tmp_path / "canary.hcl").open("a") as policy:
        policy.write('path "${mount}/data/signers/lease" { capabilities = ["read"] }\n')
    assert run.audited("--grants", str(tmp_path)) == (
        1,
        f"never used: canary may read {run.mount}/data/signers/lease\n",
    )
