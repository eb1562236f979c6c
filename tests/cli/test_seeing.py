"""Commands that show: status, doctor, explain, evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.compose.graph import Broker, Wiring
from broker.compose.notifying import Notifying
from broker.model.account import Account
from broker.model.notice_rules import Channels
from broker.model.role import Role
from broker.vault import layout
from broker.vault.policies import policy_name
from tests.cli.test_bad_input import administrator
from tests.support.cli_harness import CliHarness
from tests.support.console import inside
from tests.support.system import PASSWORD
from tests.support.vault import with_root_token

pytestmark = pytest.mark.slow

ROW = {
    "account", "environment", "current", "not_after", "due", "due_because", "generations", "open_request", "state",
    "phase", "who", "message", "hint", "obstacles",
}  # fmt: skip


def row(harness: CliHarness, **later: int) -> dict[str, Any]:
    wiring = Wiring(clock=lambda: datetime.now(UTC) + timedelta(**later))
    (found,) = harness.ok("status acme -o json", wiring=wiring).json
    assert set(found) == ROW
    return dict(found)


@pytest.mark.parametrize(
    ("state", "lines", "who", "what", "command"),
    [
        ("added", ["app remove acme/reporting --yes"], "us", "it has no application", "broker app add"),
        ("added", [], "us", "it has no certificate", "broker csr new acme"),
        ("requested", [], "us", "was never sent", "broker csr submit acme"),
        ("requested", ["csr submit acme"], "partner", "was sent less than a minute ago", "broker cert import acme"),
        ("candidate", [], "us", "generation 1 is ready to be tried", "broker rotation promote acme"),
        ("promoted", [], "nobody", "nothing", ""),
        ("promoted", ["app add acme/new"], "us", "application new has no client_id", "broker app set acme/new"),
        ("renewed", [], "us", "generation 2 is ready to be tried", "broker rotation promote acme"),
        ("rotated", [], "nobody", "generation 1 is kept until ", ""),
    ],
)
def test_status_says_who_must_act_and_how(
    harness: CliHarness, state: str, lines: list[str], who: str, what: str, command: str
) -> None:
    harness.put(state)
    for line in lines:
        harness.ok(line)
    found = row(harness)
    assert (found["who"], what in found["message"], command in found["hint"]) == (who, True, True), found
    text = harness.ok("status").out
    assert what in text
    assert found["hint"] in text


def test_missing_password_is_reported(harness: CliHarness) -> None:
    harness.put("empty")
    harness.ok(harness.good("account add"))
    assert "it has no password" in row(harness)["message"]


def test_time_makes_it_stuck_due_and_expired(harness: CliHarness) -> None:
    harness.put("requested")
    harness.ok("csr submit acme")
    assert "stuck" in row(harness, days=60)["message"]
    harness.put("promoted")
    assert row(harness, days=360)["message"].startswith("renewal is due")
    assert row(harness)["due"] < row(harness)["not_after"]
    later = Wiring(clock=lambda: datetime.now(UTC) + timedelta(days=400))
    assert "ago" in harness.ok("status", wiring=later).out
    ended = harness.run("bundle get acme/reporting --consumer-token-file reader.token --to b", wiring=later)
    assert ended.code == 6
    assert not (harness.home / "b" / "current").exists()


@pytest.mark.parametrize(
    ("state", "days", "shown", "code"),
    [
        ("promoted", 0, "ok", 0),
        ("requested", 0, "unfinished", 0),
        ("promoted", 360, "due", 7),
        ("locked", 0, "stopped", 6),
        ("promoted", 400, "expired", 6),
    ],
)
def test_detailed_exit_code_follows_the_state(
    harness: CliHarness, state: str, days: int, shown: str, code: int
) -> None:
    harness.put(state)
    later = Wiring(clock=lambda: datetime.now(UTC) + timedelta(days=days))
    for form in ("table", "json"):
        ended = harness.run(f"status --detailed-exitcode -o {form}", wiring=later)
        assert (ended.code, f"{shown}" in ended.out) == (code, True)
        assert harness.run(f"status -o {form}", wiring=later).code == 0


def test_the_worst_account_comes_first(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok(harness.good("account add", account="aaa"))
    later = Wiring(clock=lambda: datetime.now(UTC) + timedelta(days=400))
    assert [a["account"] for a in harness.ok("status -o json", wiring=later).json] == ["acme", "aaa"]
    assert "EXPIRED on 20" in harness.ok("status acme", wiring=later).out


def codes(harness: CliHarness, code: int, wiring: Wiring | None = None, **env: str) -> dict[str, str]:
    ended = harness.run("doctor -o json", wiring=wiring, env=env)
    assert ended.code == code, ended.out
    assert ended.json["success"] is (code == 0)
    for finding in ended.json["findings"]:
        assert finding["message"]
        assert finding["hint"] or finding["severity"] == "note"
    return {finding["code"]: finding["severity"] for finding in ended.json["findings"]}


def test_doctor_finds_nothing_wrong(harness: CliHarness) -> None:
    harness.put("rotated")
    before = harness.look()
    found = codes(harness, 0)
    assert set(found) - {"process.swap"} == {"vault.answers", "partner.unknown", "notice.none"}  # few may lock memory
    assert "no errors" in harness.ok("doctor").out
    assert harness.look() == before


def test_doctor_finds_readable_secrets(harness: CliHarness) -> None:
    harness.put("promoted")
    file = harness.home / "roles/auditor/secret_id"
    mode = file.stat().st_mode & 0o777
    try:
        file.chmod(0o644)
        assert codes(harness, 6)["file.mode"] == "error"
    finally:
        file.chmod(mode)


def test_doctor_finds_a_login_that_is_gone(harness: CliHarness) -> None:
    harness.put("promoted")
    file = harness.home / "roles/rotator/secret_id"
    good, mode = file.read_text(), file.stat().st_mode & 0o777
    try:
        file.unlink()
        found = codes(harness, 0)
        assert found["file.missing"] == "warning"
        assert "role.rotator" not in found  # it is reported already, and may work on another host
        file.write_text("00000000-0000-4000-8000-000000000000")
        file.chmod(mode)
        assert codes(harness, 6, VAULT_TOKEN=administrator(harness))["role.rotator"] == "error"
    finally:
        file.write_text(good)
        file.chmod(mode)


def test_doctor_names_a_token_for_all_roles(harness: CliHarness) -> None:
    harness.put("promoted")
    token = administrator(harness)
    assert "role.token" not in codes(harness, 0, VAULT_TOKEN=token)  # each role has a login of its own
    found = harness.run("doctor -o json", env={"VAULT_TOKEN": token, "BROKER_CONFIG": "plain.toml"}).json["findings"]
    (finding,) = [f for f in found if f["code"] == "role.token"]
    assert finding["severity"] == "warning"
    assert "$VAULT_TOKEN is used for server, rotator" in finding["message"]
    assert finding["hint"].startswith("unset VAULT_TOKEN")


@pytest.mark.slow
def test_doctor_names_a_root_token_as_such(tmp_path: Path) -> None:
    with with_root_token() as settings:
        assert settings.token
        environment = {"HOME": str(tmp_path), "VAULT_ADDR": settings.address, "VAULT_TOKEN": settings.token.reveal()}
        found = inside(["doctor", "-o", "json"], home=tmp_path, environment=environment).json["findings"]
    assert [f for f in found if f["code"] == "role.token" and "root token" in f["message"]]


def test_host_of_one_role_is_checked_for_it(harness: CliHarness) -> None:
    harness.put("promoted")
    lines = [f'{name}_file = "roles/server/{name}"' for name in ("role_id", "secret_id")]
    (harness.home / "one.toml").write_text("\n".join(["version = 1", "[roles.server]", *lines]))
    one = "one.toml"
    assert "the configuration is valid" in harness.ok("config check", env={"BROKER_CONFIG": one}).err
    status = harness.ok("vault status -o json", env={"BROKER_CONFIG": one}).json
    assert (status["answers"], status["serves"]) == (True, True)
    found = codes(harness, 0, BROKER_CONFIG=one)
    assert found["account.unseen"] == "note"
    assert not [code for code in found if code.startswith("role.")]


def test_doctor_without_logins_says_less(harness: CliHarness) -> None:
    harness.put("promoted")
    none = {"BROKER_CONFIG": "plain.toml"}
    assert codes(harness, 6, BROKER_CONFIG="plain.toml")["role.none"] == "error"
    lines = ["version = 1"]
    for role in Role:
        lines += [f"[roles.{role.value}]", 'role_id_file = "gone/role_id"', 'secret_id_file = "gone/secret_id"']
    (harness.home / "gone.toml").write_text("\n".join(lines))
    assert codes(harness, 6, BROKER_CONFIG="gone.toml")["role.none"] == "error"
    ended = harness.run("vault status", env=none)
    assert ended.code == 2
    assert [line.split() for line in ended.out.splitlines() if line.startswith(("answers", "serves"))] == [
        ["answers", "yes"],
        ["serves", "unknown"],
    ]
    assert harness.run("vault status -o json", env=none).json["serves"] is None


def test_one_damaged_account_hides_no_other(harness: CliHarness) -> None:
    harness.put("promoted")
    vault, mount = harness.saved.system.vault.admin, harness.saved.system.vault.settings.mount
    harness.partner.faults.set("login-rejected")
    harness.run("rotation canary acme")
    vault.create("accounts/aaa", {"value": "damaged"})
    try:
        found = codes(harness, 6)
        assert found["account.unreadable"] == "error"
        assert found["account.breaker"] == "error"
    finally:
        vault.call("DELETE", f"{mount}/metadata/accounts/aaa")


NEWER = {"schema": 2}
STRANGE = {"surprise": True}


@pytest.mark.parametrize(
    ("changed", "hint"), [(NEWER, "upgrade this broker"), (STRANGE, "then broker partner add FILE")]
)
def test_refused_profile_hides_no_account(harness: CliHarness, changed: dict[str, object], hint: str) -> None:
    harness.put("profiled")
    harness.ok(harness.good("account add", "zzz").replace("account add zzz", "account add zzz --profile own"))
    before = harness.ok("status acme -o json").json
    vault = harness.saved.system.vault.admin
    stored = vault.read(layout.profile("own"))
    vault.write(layout.profile("own"), {**stored.data, **changed}, replacing=stored.version)
    other, acme = harness.ok("status -o json").json
    assert [acme] == before
    assert (set(other), other["account"], other["who"], other["due"]) == (ROW, "zzz", "us", None)
    assert "profile own: " in other["message"]
    assert hint in other["message"]
    text = harness.ok("status").out
    assert "acme " in text
    assert other["message"] in text
    assert [a["name"] for a in harness.ok("account list -o json").json] == ["acme", "zzz"]
    (found,) = [f for f in harness.run("doctor -o json").json["findings"] if f["code"] == "account.profile"]
    assert found["severity"] == "error"
    assert found["message"].startswith("zzz: profile own: ")
    assert hint in found["hint"]
    listed = harness.ok("partner list -o json")
    assert [p["name"] for p in listed.json] == ["stellantis"]
    assert "profile own: " in listed.err
    refused = harness.run("csr new zzz")
    assert refused.code == 2
    assert hint in refused.err


def test_doctor_finds_a_clock_that_is_off(harness: CliHarness) -> None:
    harness.put("promoted")
    off = Wiring(clock=lambda: datetime.now(UTC) - timedelta(hours=1))
    assert codes(harness, 6, off)["clock.skew"] == "error"
    assert " behind Vault's: certificates" in harness.run("doctor", wiring=off).out


def test_doctor_finds_accounts_in_trouble(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.partner.faults.set("login-rejected")
    answered = harness.run("rotation canary acme -o json")
    assert (answered.code, answered.json["verdict"]) == (6, "login_rejected")
    assert codes(harness, 6)["account.breaker"] == "error"


def test_doctor_finds_missing_rights(harness: CliHarness) -> None:
    harness.put("promoted")
    vault, mount = harness.saved.system.vault.admin, harness.saved.system.vault.settings.mount
    path = f"sys/policies/acl/{policy_name(mount, 'rotator')}"
    policy = vault.ask("GET", path)["data"]["policy"]
    try:
        vault.call("POST", path, {"policy": 'path "nothing" { capabilities = ["read"] }'})
        ended = harness.run("csr new acme")
        assert ended.code == 5
        assert f"role rotator lacks read on {mount}/data/accounts/acme" in ended.err
        assert "broker doctor" in ended.err
        (found,) = [f for f in harness.run("doctor -o json").json["findings"] if f["code"] == "role.rotator"]
        assert f"read, update on {mount}/data/accounts/+" in found["message"]
    finally:
        vault.call("POST", path, {"policy": policy})


def test_explain_can_be_mailed_as_it_is(harness: CliHarness) -> None:
    harness.put("promoted")
    client_id = harness.account.application("reporting").client_id
    for output in ("table", "json"):
        shown = harness.ok(f"explain acme -o {output}").out
        assert PASSWORD not in shown
        assert client_id not in shown
        assert "PRIVATE KEY" not in shown
        assert "/fleets" in shown
        assert "Authorization: Basic" in shown
    facts = harness.ok("explain acme -o json").json
    assert set(facts) == {"account", "generation", "changes", "certificate", "server_ca", "answers", "http", "curl"}
    assert facts["answers"]
    assert set(facts["certificate"]) == {"subject", "issuer", "serial", "not_before", "not_after", "fingerprint"}
    moment = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
    assert all(moment.fullmatch(text) for text in (facts["certificate"]["not_after"], facts["answers"][0]["at"]))
    fingerprints = facts["certificate"]["fingerprint"], *facts["server_ca"]
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in fingerprints)


def test_explain_works_without_a_client_id(harness: CliHarness) -> None:
    harness.put("requested")
    harness.ok(f"cert import acme reply.zip {' '.join(harness.saved.system.accepting())}")
    shown = harness.ok("explain acme").out
    assert "client_id=" in shown
    assert "Expected answer:\n\n  200, application/hal+json\n" in shown
    assert '401 "Not registered to plan": the client_id is right' in shown
    assert harness.run("rotation canary acme").code == 6


def test_evidence_is_whole_and_verifies(harness: CliHarness) -> None:
    harness.put("rotated")
    harness.ok("bundle get acme/reporting --consumer-token-file reader.token --to bundle")
    entries = harness.ok("evidence show acme --issued -o json").json
    assert {"chain", "number", "at", "by", "what", "facts"} <= set(entries[0])
    kinds = [entry["what"] for entry in entries]
    assert kinds[0] == "account-added"
    assert "bundle-issued" in kinds
    assert kinds.count("generation-moved") == 2
    assert PASSWORD not in str(entries)
    assert harness.ok("evidence verify --all -o json").json["success"] is True
    given = next(entry["facts"] for entry in entries if entry["what"] == "bundle-issued")
    assert given["expires"].endswith("Z")
    shown = harness.ok("evidence show acme").out
    assert "bundle-issued" not in shown
    assert "…" not in shown  # what is piped is whole
    assert "bundle-issued" in harness.ok("evidence show --all").out


def test_verify_counts_the_chains_of_leases(harness: CliHarness) -> None:
    """A line for each would hide the accounts: every process that issues bundles has a chain."""
    harness.put("rotated")
    for _ in range(3):
        harness.ok("bundle get acme/reporting --consumer-token-file reader.token --to bundle")
    shown = harness.ok("evidence verify --all")
    assert "issued/" not in shown.out
    assert "3 chains of issued bundles, 3 entries: whole" in shown.out
    assert len(harness.ok("evidence verify --all -o json").json["chains"]) == 4


def test_changed_evidence_is_found(harness: CliHarness) -> None:
    harness.put("promoted")
    vault, mount = harness.saved.system.vault.admin, harness.saved.system.vault.settings.mount
    path = next(p for p in harness.look().documents if p.startswith("evidence/accounts/acme/"))
    vault.call("DELETE", f"{mount}/metadata/{path}")
    ended = harness.run("evidence verify acme -o json")
    assert ended.code == 6
    assert ended.json["success"] is False
    assert "broken" in harness.run("evidence verify acme").out


def test_export_is_verified_without_vault(harness: CliHarness) -> None:
    harness.put("rotated")
    harness.ok("evidence anchor")
    harness.ok("evidence export all.jsonl --key-to anchor.pem")
    away = {"VAULT_ADDR": "unix:///nowhere/vault.sock"}
    assert harness.ok("evidence verify --file all.jsonl --key anchor.pem -o json", env=away).json["success"] is True
    text = (harness.home / "all.jsonl").read_text()
    assert PASSWORD not in text
    (harness.home / "all.jsonl").write_text(text.replace("generation-moved", "generation-maved", 1))
    assert harness.run("evidence verify --file all.jsonl", env=away).code == 6


def test_administrators_token_is_not_printed(harness: CliHarness) -> None:
    harness.put("promoted")
    token = administrator(harness)
    for line in ("status", "doctor", "config show", "vault status", "vault env", "account list -o json"):
        ended = harness.run(line, env={"VAULT_TOKEN": token})
        assert token not in ended.out + ended.err


def test_status_reads_accounts_once(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a channel for notices too, which has findings about all accounts."""
    harness.put("promoted")
    counted, read = list[Broker](), Broker.all_accounts

    def all_accounts(broker: Broker) -> Iterator[Account]:
        counted.append(broker)
        return read(broker)

    monkeypatch.setattr(Broker, "all_accounts", all_accounts)
    monkeypatch.setattr(Notifying, "channels", Channels(mail=True, webhook=False))
    assert "acme" in harness.ok("status").out
    assert len(counted) == 1
