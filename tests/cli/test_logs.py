"""Log lines of commands: what is logged at which level, the context in them, and the stack of a fault."""

from __future__ import annotations

import json

import pytest

from broker.compose.graph import Broker
from tests.support.cli_harness import CliHarness
from tests.support.system import PASSWORD

JSON = {"BROKER_LOG_FORMAT": "json"}


def lines(err: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


def test_commands_log_nothing_by_default(harness: CliHarness) -> None:
    harness.put("promoted")
    assert lines(harness.ok("app add acme/new", env=JSON).err) == []


def test_changes_are_logged_at_info(harness: CliHarness) -> None:
    harness.put("promoted")
    (line,) = lines(harness.ok("app add acme/new -v", env=JSON).err)
    assert (line["event"], line["level"], line["account"]) == ("application-set", "info", "acme")
    assert (line["chain"], line["application"]) == ("accounts/acme", "new")
    assert line["command"] == "broker app add"
    assert line["request"]


def test_canaries_and_verdicts_are_logged(harness: CliHarness) -> None:
    harness.put("promoted")
    logged = lines(harness.ok("rotation canary acme --log-level info", env=JSON).err)
    assert [(line["event"], line.get("verdict")) for line in logged] == [
        ("canary-sent", None),
        ("canary-answered", "ok"),
    ]


def test_bundles_are_logged_with_their_lease(harness: CliHarness) -> None:
    harness.put("promoted")
    (line,) = lines(harness.ok(f"{harness.good('bundle get')} -v", env=JSON).err)
    assert line["event"] == "bundle-issued"
    assert line["lease"]


def test_debug_logs_requests_to_vault(harness: CliHarness) -> None:
    harness.put("promoted")
    logged = lines(harness.ok("app list acme -vv", env=JSON).err)
    read = next(line for line in logged if str(line.get("path", "")).endswith("data/accounts/acme"))
    assert (read["event"], read["method"], read["status"]) == ("vault request", "GET", 200)
    assert read["vault_request"]
    assert isinstance(read["milliseconds"], int)
    assert len({line["request"] for line in logged}) == 1


@pytest.mark.slow
def test_retries_are_logged_on_stderr(harness: CliHarness) -> None:
    harness.put("promoted")
    away = {"VAULT_ADDR": "unix:///nowhere/vault.sock", "BROKER_TIMEOUT": "1s", **JSON}
    ended = harness.run("app list acme -o json -vv", env=away)
    assert json.loads(ended.out)["code"] == "vault-unavailable"
    assert {line["event"] for line in lines(ended.err)} == {"vault retry"}


def test_the_service_outwaits_no_client(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of it reads for 10 seconds, so by then it has said that Vault is away."""
    found: list[str] = []

    def serve(broker: Broker, *_: object) -> int:
        found.append(broker.roles.config["vault.patience"])
        return 0

    monkeypatch.setattr(Broker, "serve", serve)
    for given in ("", "--timeout 3s "):
        harness.ok(f"{given}serve --listen 127.0.0.1:0")
    assert found == ["8s", "3s"]


def test_a_fault_leaves_its_stack(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("promoted")

    def broken(*_: object) -> None:
        raise RuntimeError(PASSWORD)

    monkeypatch.setattr("broker.cli.account._shown", broken)
    assert lines(harness.run("account list -o json", env=JSON).err) == []
    ended = harness.run("account list -o json --log-level debug", env=JSON)
    fault = lines(ended.err)[-1]
    assert (fault["event"], fault["type"]) == ("unexpected fault", "RuntimeError")
    stack = fault["stack"]
    assert isinstance(stack, list)
    assert stack[-1].startswith("broker/cli/account.py:")
    assert stack[-1].endswith(":<listcomp>") or stack[-1].endswith(":list_")
    assert PASSWORD not in ended.out + ended.err


def test_a_fault_before_any_configuration(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("promoted")

    def broken(_: object) -> None:
        raise RuntimeError(PASSWORD)

    monkeypatch.setattr("broker.cli.cert.read_files", broken)
    ended = harness.run("cert inspect reply.zip --log-level error")
    assert "unexpected fault" in ended.err
    assert "broker/cli/cert.py:" in ended.err
    assert PASSWORD not in ended.err


@pytest.mark.parametrize(
    ("line", "env"),
    [
        ("app list acme --log-level loud", {}),
        ("app list acme", {"BROKER_LOG_LEVEL": "loud"}),
        ("app list acme -v", {"BROKER_LOG_FORMAT": "xml"}),
    ],
)
def test_unknown_log_settings_are_refused(harness: CliHarness, line: str, env: dict[str, str]) -> None:
    harness.put("promoted")
    ended = harness.run(line, env=env)
    assert ended.code == 2
    assert "is not a log" in ended.err
