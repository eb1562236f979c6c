"""Accounts, applications, profiles, settings and consumers, as they are set up."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest

from broker.copies import replace
from broker.pki.csr import parse
from broker.vault.connection import Connection
from broker.vault.errors import GoneError
from tests.cli.test_bad_input import administrator, setup_token
from tests.cli.test_cert import accepting, answer
from tests.support.cli_harness import CliHarness
from tests.support.console import inside
from tests.support.system import Ended

pytestmark = pytest.mark.slow

ACCOUNT = {
    "name", "profile", "environment", "login", "base_url", "subject", "created_at", "contacts", "applications",
    "requests", "generations", "certificates", "anchors",
}  # fmt: skip


def test_repeated_account_add_is_no_conflict(harness: CliHarness) -> None:
    harness.put("empty")
    line = harness.good("account add", account="new")
    assert "login MZP0000002 at https://partner.example/v3" in harness.ok(line).err
    harness.ok(line)
    (found,) = harness.ok("account list -o json").json
    assert set(found) >= ACCOUNT
    assert not [name for name in found if name == "outbox" or name.startswith("doomed")]
    assert dict(found["subject"]["attributes"])["OU"] == "Programs Partners"
    conflict = harness.run(line.replace("MZP0000002", "MZP0000003"))
    assert conflict.code == 8


def test_show_and_list_have_text_and_json(harness: CliHarness) -> None:
    harness.put("rotated")
    assert set(harness.ok("account show acme -o json").json) >= ACCOUNT
    text = harness.ok("account show acme").out
    for part in ("login", "APPLICATION", "REQUEST", "GENERATION", "previous", "current"):
        assert part in text
    listed = harness.ok("account list").out.splitlines()
    assert listed[0].split() == ["ACCOUNT", "PARTNER", "ENVIRONMENT", "LOGIN", "CURRENT", "EXPIRES", "APPLICATIONS"]
    assert listed[1].split()[:5] == ["acme", "stellantis", "stand-in", "MZP0000001", "2"]


def test_empty_list_is_a_note_or_empty_json(harness: CliHarness) -> None:
    harness.put("empty")
    ended = harness.ok("account list")
    assert (ended.out, "broker account add" in ended.err) == ("", True)
    assert harness.ok("account list -o json").json == []
    assert harness.ok("status -o json").json == []
    assert harness.ok("evidence show --all -o json").json == []


def test_application_is_added_and_removed(harness: CliHarness) -> None:
    harness.put("added")
    assert "comes with the partner's reply" in harness.ok("app add acme/billing").err
    assert harness.ok("app add acme/billing").code == 0
    harness.ok("app set acme/billing --client-id one")
    assert harness.run("app add acme/billing --client-id two").code == 8
    harness.ok("app set acme/billing --client-id two")
    assert [a["name"] for a in harness.ok("app list acme -o json").json] == ["billing", "reporting"]
    harness.ok("app remove acme/billing --yes")
    assert harness.run("app remove acme/billing --yes").code == 2
    assert "acme/reporting" in harness.ok("app list acme").out


def test_account_settings_can_be_cleared(harness: CliHarness) -> None:
    harness.put("promoted")
    before = harness.ok("status acme -o json").json[0]
    line = "account set acme --contact new@partner.example --team ops@acme.example --renew-before 20%"
    assert harness.ok(line).err == "account acme is set\n"
    assert harness.ok(line).err == "account acme is set already: nothing to do\n"
    shown = harness.ok("account show acme -o json").json
    assert shown["contacts"] == {"partner": ["new@partner.example"], "team": ["ops@acme.example"]}
    status = harness.ok("status acme -o json").json[0]
    assert status["due_because"] == "20% before its end, by --renew-before"
    (entry,) = [e for e in harness.ok("evidence show acme -o json").json if e["what"] == "account-set"]
    assert entry["facts"] == {
        "contact": "new@partner.example",
        "team": "ops@acme.example",
        "renew_before": "20%",
        "renewal": "auto",
        "promotion": "manual",
        "submit_via": "",
        "language": "",
    }
    assert harness.run("evidence verify acme").code == 0
    harness.ok("account set acme --clear renew-before --clear team --contact desk@partner.example")
    assert harness.ok("account show acme -o json").json["contacts"] == {"partner": ["desk@partner.example"], "team": []}
    assert harness.ok("status acme -o json").json[0]["due"] == before["due"]


def test_subject_is_corrected_for_the_next_csr(harness: CliHarness) -> None:
    harness.put("requested")
    before = parse(harness.ok("csr show acme").out.encode()).name.subject
    corrected = harness.ok("account set acme --subject O='Autre Exemple'")
    assert "signing request 1 has another subject: broker csr new acme --supersede replaces it" in corrected.err
    assert harness.ok("account set acme --subject O='Autre Exemple'").err.startswith("account acme is set already")
    after = parse(harness.ok("csr new acme --supersede --yes").out.encode()).name.subject
    assert after.get("O") == "Autre Exemple"
    assert {n: v for n, v in after.attributes if n != "O"} == {n: v for n, v in before.attributes if n != "O"}
    assert harness.run("evidence verify acme").code == 0
    harness.ok("cert import acme - " + accepting(harness), input=answer(harness).zip())


def test_suspended_account_issues_nothing(harness: CliHarness) -> None:
    harness.put("promoted")
    get = "bundle get acme/reporting --consumer-token-file reader.token --to bundle"
    harness.ok(get)
    assert "copies that were issued work as before" in harness.ok("account suspend acme --reason stolen").err
    refused = harness.run(get)
    assert refused.code == 6
    assert "suspended since" in refused.err
    assert "stolen" not in refused.err, "callers of the service get the same text"
    assert "stolen" in harness.ok("account show acme").out
    assert harness.ok("status acme -o json").json[0]["state"] == "suspended"
    assert "stolen" in harness.ok("account show acme").out
    revoked = harness.ok("account suspend acme --reason stolen --revoke -o json").json["revoked"]
    assert len(revoked) == 1
    assert revoked[0] in harness.ok("evidence show acme -o json").out
    harness.ok("rotation canary acme")
    harness.ok("csr new acme")
    harness.ok("account resume acme")
    harness.ok(get)
    assert harness.run("evidence verify acme").code == 0


def test_removed_account_leaves_its_evidence(harness: CliHarness) -> None:
    harness.put("promoted")
    kept = harness.look().documents
    assert harness.run("account remove acme --yes").code == 7
    assert harness.look().documents == kept
    harness.ok("account remove acme --force --reason over --yes")
    vault = harness.saved.system.vault.admin
    for path in ("keys/acme/1", "passwords/acme/1"):
        with pytest.raises(GoneError):
            vault.read(path)
    assert harness.ok("account list -o json").json == []
    assert harness.ok("status -o json").json == []
    for line in ("rotation status acme", "csr new acme", "password set acme --password-file secret", "status acme"):
        (harness.home / "secret").write_text("another")
        refused = harness.run(line)
        assert (refused.code, "was removed" in refused.err) == (6, True), refused
    assert "account-removed" in harness.ok("evidence show acme").out
    assert "over" in harness.ok("account show acme").out
    assert harness.run("evidence verify acme").code == 0


def test_shared_client_id_is_warned_of(harness: CliHarness) -> None:
    harness.put("promoted")
    client_id = harness.ok("app list acme -o json").json[0]["client_id"]
    said = "acme/billing and acme/reporting have the same client_id"
    assert said in harness.ok(f"app add acme/billing --client-id {client_id}").err
    assert said in harness.ok(f"app set acme/billing --client-id {client_id}").err
    assert "same client_id" not in harness.ok("app set acme/billing --client-id another").err


def test_password_is_stored_and_not_shown(harness: CliHarness) -> None:
    harness.put("added")
    (harness.home / "secret").write_text("sësame\r\n")
    shown = harness.ok("password set acme --password-file secret")
    assert "password 2 of acme is stored" in shown.err
    everything = (
        shown.out + shown.err + harness.ok("account show acme -o json").out + harness.ok("evidence show acme").out
    )
    assert "sësame" not in everything
    assert harness.saved.system.vault.admin.read("passwords/acme/2").data["value"]["password"] == "sësame"


def test_custom_profile_is_added_and_used(harness: CliHarness) -> None:
    harness.put("empty")
    assert "own-partner" in harness.ok("partner add own.toml").err
    listed = {row["name"]: row["source"] for row in harness.ok("partner list -o json").json}
    assert listed == {"stellantis": "built-in", "own-partner": "vault"}
    assert "own-partner" in harness.ok("partner list").out
    shown = harness.ok("partner show own-partner -o json").json
    assert shown["environments"]["production"]["base_url"] == "https://api.own.example/v1"
    assert "not published by the partner" in harness.ok("partner show own-partner").err
    harness.ok("account add mine --profile own-partner --login someone --subject CN=someone")
    assert harness.ok("account show mine -o json").json["base_url"] == "https://api.own.example/v1"
    harness.ok("csr new mine")


def test_a_profile_is_shown_with_its_facts(harness: CliHarness) -> None:
    shown = harness.ok("partner show stellantis").out
    lists = shown[shown.index("quotas") :]
    assert "in 1d: X-RateLimit-Limit-1, X-RateLimit-Remaining-1" in lists
    assert "writes      POST /fleets/{fid}/monitors: 202" in lists
    assert "deprecated  GET /fleets/{fid}/vehicles/{vid}/lastPosition: application/vnd.geo+json" in lists
    assert len(re.findall(r"(?:GET|POST|PUT|DELETE) /", lists)) == 47
    assert "{'" not in shown


def test_copied_profile_can_be_added(harness: CliHarness) -> None:
    harness.put("empty")
    copied = harness.ok("partner show stellantis -o toml").out
    assert copied.startswith("#")
    (harness.home / "copy.toml").write_text(copied.replace('name = "stellantis"', 'name = "copied"'))
    harness.ok("partner add copy.toml")
    shown = [harness.ok(f"partner show {name} -o json").json for name in ("stellantis", "copied")]
    assert {k: v for k, v in shown[0].items() if k != "name"} == {k: v for k, v in shown[1].items() if k != "name"}
    (harness.home / "again.toml").write_text(harness.ok("partner show copied -o toml").out)
    harness.ok("partner add again.toml")
    assert harness.ok("partner show copied -o json").json == shown[1]


def test_every_setting_has_its_source(harness: CliHarness) -> None:
    harness.put("empty")
    shown = harness.ok("--timeout 7s config show -o json", env={"BROKER_TTL": "5m"}).json
    assert set(shown) == {"file", "settings", "logins", "accounts", "bundles", "issuers", "rotation"}
    sources = {name: value["source"] for name, value in shown["settings"].items()}
    assert (shown["settings"]["vault.patience"]["value"], sources["vault.patience"]) == ("7s", "flag")
    assert (shown["settings"]["bundle.ttl"]["value"], sources["bundle.ttl"]) == ("5m", "$BROKER_TTL")
    assert sources["vault.address"] == "$VAULT_ADDR"
    assert sources["bundle.directory"] == "default"
    text = harness.ok("config show", env={"VAULT_TOKEN": "hvs.not-to-be-shown"})
    assert "hvs.not-to-be-shown" not in text.out + text.err
    assert "$BROKER_MOUNT" in text.out
    assert shown["logins"]["auditor"]["source"].endswith("broker.toml")
    other = {"VAULT_TOKEN": "hvs.not-to-be-shown", "BROKER_CONFIG": "plain.toml"}
    logins = harness.ok("config show -o json", env=other).json["logins"]
    assert logins["auditor"] == {"method": "token", "source": "$VAULT_TOKEN"}
    assert harness.ok("config show -o json", env={"BROKER_CONFIG": "plain.toml"}).json["logins"]["auditor"] is None


def test_role_prefers_its_own_login(harness: CliHarness) -> None:
    harness.put("promoted")
    assert harness.ok("account list", env={"VAULT_TOKEN": "hvs.wrong"}).out


def test_check_reads_every_named_file(harness: CliHarness) -> None:
    harness.put("empty")
    assert "the configuration is valid" in harness.ok("config check").err
    ended = harness.run("config check", env={"VAULT_CACERT": "/nowhere/ca.pem"})
    assert ended.code == 2
    assert "/nowhere/ca.pem" in ended.err
    (harness.home / "broken.toml").write_text('version = 1\n[roles.auditor]\nrole_id_file = "nowhere"\n')
    ended = harness.run("config check", env={"BROKER_CONFIG": "broken.toml"})
    assert ended.code == 2
    assert "auditor" in ended.err
    text = 'version = 1\n[roles.auditor]\nrole_id_file = "nowhere"\nsecret_id_file = "neither"\n'
    (harness.home / "broken.toml").write_text(text)
    ended = harness.run("config check", env={"BROKER_CONFIG": "broken.toml", "VAULT_ADDR": "https://vault.example"})
    for name in ("nowhere", "neither"):
        assert re.search(rf"^auditor: \S*{name}: No such file or directory$", ended.err, re.MULTILINE)
    assert "broker vault setup --login-dir" in ended.err
    for table, says in (
        ('[roles.server]\nmethod = "kerberos"', "server role: there is no login method"),
        ("[roles.server]\nsecret_id_file = 'plain.toml'", "server role: the login approle needs role_id_file"),
        ('[login]\nmethod = "token"', "needs file"),
    ):
        (harness.home / "broken.toml").write_text(f"version = 1\n{table}\n")
        ended = harness.run("config check", env={"BROKER_CONFIG": "broken.toml"})
        assert (ended.code, says in ended.err) == (2, True), ended.err


def test_a_host_of_an_application_learns_where(tmp_path: Path) -> None:
    ended = inside(
        ("account", "list"), home=tmp_path, environment={"HOME": str(tmp_path), "BROKER_ADDR": "https://b.example"}
    )
    assert (ended.code, "goes to Vault directly" in ended.err) == (2, True)
    environment = {"HOME": str(tmp_path), "BROKER_ADDR": "https://b.example", "BROKER_AUTH": "kubernetes"}
    ended = inside(("bundle", "get", "acme/reporting"), home=tmp_path, environment=environment)
    assert (ended.code, "project a service account token there" in ended.err) == (2, True)


@pytest.mark.parametrize("length", [120, 3000])
def test_directory_too_long_for_a_socket(tmp_path: Path, length: int) -> None:
    directory = "/".join(["x" * 99] * (length // 100))
    environment = {"HOME": str(tmp_path), "BROKER_EMBEDDED": f"{tmp_path}/{directory}/x"}
    for words, code in ((("status",), 2), (("vault", "status"), 2), (("vault", "stop"), 0), (("vault", "start"), 2)):
        ended = inside(words, home=tmp_path, environment=environment)
        assert ended.code == code, ended.err


def test_user_without_passwd_needs_no_home(
    harness: CliHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is given just a UID."""
    harness.put("added")
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: 2**31 - 43210)
        alone = dict.fromkeys(("HOME", "XDG_STATE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"), "")
        assert harness.run("status", env=alone).code == 0
        shown = harness.ok("config show -o json", env=alone).json["settings"]
        lost = inside(["status"], home=tmp_path, environment={})
    assert shown["embedded.directory"]["value"] == "/var/lib/credential-broker/vault"
    assert shown["actor"]["value"].startswith(f"uid-{2**31 - 43210}@")
    assert (lost.code, "broker vault start" in lost.err) == (2, True), lost.err


def test_setup_grants_the_pki_that_is_configured(harness: CliHarness) -> None:
    line = 'path "pki/sign/broker" { capabilities = ["update"] }'
    assert json.dumps(line)[1:-1] in harness.ok("vault setup --print sh", env={"BROKER_TLS_PKI": "pki/broker"}).out
    assert "/sign/" not in harness.ok("vault setup --print sh").out


def test_init_without_terminal_has_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"HOME": str(tmp_path)}
    assert inside(["init", "--out", "-"], home=tmp_path, environment=environment).code == 0
    monkeypatch.setattr("broker.embedded.server.PACKAGE", "not_installed")
    ended = inside(["init"], home=tmp_path, environment=environment)
    assert (ended.code, "--vault" in ended.err) == (2, True)
    assert not (tmp_path / "broker.toml").exists()


@pytest.mark.parametrize(
    "answers",
    [
        "--vault embedded",
        "--vault https://vault.example:8200 --mount kv/x --namespace 'tëam'",
        "--consumer --addr unix:///run/broker.sock --auth jwt-env:CI_TOKEN",
    ],
)
def test_what_init_writes_can_be_read(tmp_path: Path, answers: str) -> None:
    environment = {"HOME": str(tmp_path)}
    ended = inside(["init", *shlex.split(answers)], home=tmp_path, environment=environment)
    assert ended.code == 0, ended.err
    shown = inside(["config", "show", "-o", "json"], home=tmp_path, environment=environment)
    assert shown.json["file"].endswith("broker.toml")
    again = inside(["init", *shlex.split(answers)], home=tmp_path, environment=environment)
    assert again.code == 0
    other = inside(["init", "--vault", "https://other.example"], home=tmp_path, environment=environment)
    assert other.code == 2
    assert "exists already" in other.err
    assert inside(["init", "--force", *shlex.split(answers)], home=tmp_path, environment=environment).code == 0
    printed = inside(["init", "--out", "-", *shlex.split(answers)], home=tmp_path, environment=environment)
    assert printed.out == (tmp_path / "broker.toml").read_text()


def test_enrolled_consumer_gets_its_bundle(harness: CliHarness) -> None:
    harness.put("promoted")
    root = {"VAULT_TOKEN": setup_token(harness)}
    harness.ok("vault enrol worker --right acme/reporting --token-file worker.token --login-dir worker", env=root)
    for name in ("worker.token", "worker/role_id", "worker/secret_id"):
        assert (harness.home / name).stat().st_mode & 0o777 == 0o600
    facts = harness.ok("bundle get acme/reporting --consumer-token-file worker.token --to bundle -o json").json
    assert set(facts) == {
        "version", "success", "account", "application", "generation", "expiration", "not_after", "base_url",
        "client_id", "directory", "files",
    }  # fmt: skip
    assert all(Path(path).exists() for path in facts["files"].values())
    bad = harness.run("vault enrol ../x --right acme/reporting --token-file t", env=root)
    assert bad.code == 2
    assert "is not a name" in bad.err


def test_setting_up_again_changes_nothing(harness: CliHarness) -> None:
    harness.put("empty")
    root = {"VAULT_TOKEN": setup_token(harness)}
    for line in ("vault setup --dry-run -o json", "vault setup -o json"):
        assert {row["action"] for row in harness.ok(line, env=root).json} == {"keep"}
    script = harness.ok("vault setup --print sh").out
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


def test_repeated_setup_keeps_the_logins(harness: CliHarness) -> None:
    harness.put("empty")
    root = {"VAULT_TOKEN": setup_token(harness)}
    first = harness.ok("vault setup --login-dir here", env=root)
    assert "new logins of server, rotator" in first.err
    made = {file: file.read_text() for file in (harness.home / "here").rglob("*_id")}
    assert len(made) == 12
    harness.writes.clear()
    again = harness.ok("vault setup --login-dir here", env=root)
    assert "logins in here that work are kept: server, rotator" in again.err
    assert harness.writes == []
    assert {file: file.read_text() for file in (harness.home / "here").rglob("*_id")} == made


def test_mount_in_use_is_shared_on_request(harness: CliHarness) -> None:
    """Each hint is a command that works as printed; the effects of sharing are shown first."""
    harness.put("empty")
    admin = harness.saved.system.vault.admin
    env = {"VAULT_TOKEN": setup_token(harness, "team-kv"), "BROKER_CONFIG": "plain.toml", "BROKER_MOUNT": "team-kv"}
    admin.call("POST", "sys/mounts/team-kv", {"type": "kv", "options": {"version": "2"}})
    team = Connection(replace(admin.settings, mount="team-kv"), admin.tokens)
    try:
        team.create("app/db", {})
        before = admin.ask("GET", "team-kv/config")["data"]
        refused = harness.run("vault setup", env=env)
        assert refused.code == 6
        assert "team-kv/ holds app/" in refused.err
        hints = re.findall(r"(?:BROKER_MOUNT=(\S+) )?broker (vault setup [^;\n]*--dry-run)", refused.err)
        assert len(hints) == 2
        for mount, line in hints:
            other = {"BROKER_MOUNT": mount, "VAULT_TOKEN": setup_token(harness, mount)} if mount else {}
            harness.ok(line, env=env | other)
        shown = harness.ok("vault setup --adopt-mount --dry-run", env=env).err
        assert "team-kv/ keeps its own cas_required and max_versions" in shown
        assert "can read the broker's private keys" in shown
        harness.ok("vault setup --adopt-mount", env=env)
        assert admin.ask("GET", "team-kv/config")["data"] == before
        again = harness.ok("vault setup", env=env).err
        assert again.splitlines()[-2].startswith("0 of ")
        assert again.splitlines()[-1] == "no role can log in from here; next: broker vault setup --login-dir roles"
    finally:
        team.close()
        admin.call("DELETE", "sys/mounts/team-kv")
        admin.call("DELETE", "sys/auth/team-kv")


def test_every_write_of_setup_is_seen(harness: CliHarness) -> None:
    harness.put("promoted")
    root = {"VAULT_TOKEN": setup_token(harness)}
    harness.ok("vault enrol seen --right acme/reporting --token-file seen.token", env=root)
    assert [path.partition("/")[0] for path in harness.writes] == ["sys", "identity", "auth", "identity", "auth"]


def test_repeated_enrol_keeps_the_login(harness: CliHarness) -> None:
    harness.put("promoted")
    root = {"VAULT_TOKEN": setup_token(harness)}
    line = "vault enrol twice --right acme/reporting --login-dir twice"
    harness.ok(line, env=root)
    secret_id = (harness.home / "twice/secret_id").read_text()
    ended = harness.ok(f"{line} --token-file twice.token", env=root)
    assert (harness.home / "twice/secret_id").read_text() == secret_id
    assert "twice.token expires in 20 minutes" in ended.err
    known = harness.saved.system.vault.admin.ask(
        "LIST", f"auth/{harness.saved.system.vault.settings.mount}/role/consumer-twice/secret-id"
    )
    assert len(known["data"]["keys"]) == 1


def test_token_on_stdout_is_one_line(harness: CliHarness) -> None:
    harness.put("promoted")
    root = {"VAULT_TOKEN": setup_token(harness)}
    ended = harness.ok("vault enrol piped --right acme/reporting --token-file -", env=root)
    assert ended.err.startswith("the token expires in 20 minutes and is not renewed\n")
    (token,) = ended.out.splitlines(keepends=True)
    assert token.endswith("\n")
    get = "bundle get acme/reporting --consumer-token-file - --to piped"
    harness.ok(get, input=token.encode())
    assert "--token-file PATH|-" in harness.ok("vault enrol --help").out


def test_enrol_keeps_other_logins(harness: CliHarness) -> None:
    """The secret-id would stay valid, and nobody would have it."""
    harness.put("promoted")
    root = {"VAULT_TOKEN": setup_token(harness)}
    line = "vault enrol {} --right acme/reporting --login-dir mine"
    harness.ok(line.format("first"), env=root)
    mine = {name: (harness.home / "mine" / name).read_bytes() for name in ("role_id", "secret_id")}
    harness.ok("vault enrol second --right acme/reporting --token-file t", env=root)
    harness.writes.clear()
    for name in ("second", "third"):  # there already, and not
        ended = harness.run(line.format(name), env=root)
        assert ended.code == 2
        assert f"mine holds another login than that of consumer-{name}" in ended.err
    assert harness.writes == []
    assert {name: (harness.home / "mine" / name).read_bytes() for name in mine} == mine
    harness.ok(line.format("first"), env=root)


def test_vault_without_setup_is_reported(harness: CliHarness) -> None:
    harness.put("empty")
    changes = {"BROKER_CONFIG": "plain.toml", "VAULT_TOKEN": administrator(harness), "BROKER_MOUNT": "never-set-up"}
    ended = harness.run("account list", env=changes)
    assert ended.code == 2
    assert "broker vault setup" in ended.err


def test_expired_secret_id_names_its_file(harness: CliHarness) -> None:
    harness.put("empty")
    file = harness.home / "roles/auditor/secret_id"
    good = file.read_text()
    try:
        file.write_text("00000000-0000-4000-8000-000000000000")
        ended = harness.run("account list")
        assert ended.code == 5
        assert str(file) in ended.err
        file.write_text("")
        assert harness.run("account list").code == 5
        file.unlink()
        assert harness.run("account list -o json").json["code"] == "denied"
    finally:
        file.write_text(good)


def test_env_is_for_a_shell(harness: CliHarness) -> None:
    harness.put("empty")
    text = harness.ok("vault env").out
    done = subprocess.run(
        ["sh", "-c", 'eval "$0"; echo "$VAULT_ADDR"', text], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == harness.saved.system.environment["VAULT_ADDR"]
    assert "TOKEN" not in text


@pytest.mark.slow
def test_embedded_vault_starts_and_stops() -> None:
    with tempfile.TemporaryDirectory(prefix="broker-own-") as directory:  # short: a socket's path has 104 bytes
        home = Path(directory)

        def run(*words: str) -> Ended:
            return inside(words, home=home, environment={"HOME": directory, "BROKER_EMBEDDED": f"{directory}/vault"})

        assert run("vault", "status").code == 2
        try:
            assert [run("vault", "start").code for _ in range(2)] == [0, 0]
            status = run("vault", "status", "-o", "json").json
            assert (status["answers"], status["serves"]) == (True, True)
            assert run("account", "list", "-o", "json").json == []
            assert run("doctor").code == 0
            assert run("vault", "setup").code == 0
        finally:
            stopped = run("vault", "stop")
        assert stopped.code == 0
        assert "does not run" in run("vault", "stop").err
        assert run("vault", "status").code == 3
        shown = run("--timeout", "2s", "account", "list")
        assert shown.code == 3
        assert "broker vault start" in shown.err
