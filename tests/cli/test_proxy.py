"""The proxy of the broker, and that of one account."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_seeing import codes
from tests.support.cli_harness import CliHarness
from tests.support.forward_proxies import LOGIN, running
from tests.support.ports import free_ports

pytestmark = pytest.mark.slow


@pytest.mark.peer("tinyproxy")
def test_canary_takes_the_configured_way(harness: CliHarness, tmp_path: Path) -> None:
    harness.put("candidate")
    login = tmp_path / "proxy.login"
    login.write_text(f"{LOGIN}\n")
    with running("tinyproxy") as proxy:
        env = {"BROKER_PROXY": f"http://{proxy.host}:{proxy.port}", "BROKER_PROXY_LOGIN_FILE": str(login)}
        harness.ok("config check", env=env)
        assert harness.ok("rotation canary acme -o json", env=env).json["verdict"] == "ok"
    away = harness.run("rotation canary acme -o json", env=env)
    assert (away.code, away.json["code"], away.json["verdict"]) == (4, "partner-unavailable", "proxy")
    assert "broker config show" in away.json["hint"]
    shown = harness.ok("config show", env=env)
    assert env["BROKER_PROXY"] in shown.out
    assert LOGIN not in away.out + away.err + shown.out + shown.err


def test_account_has_its_own_way(harness: CliHarness) -> None:
    """`proxy = ""` is the direct way, though the broker has a proxy."""
    harness.put("candidate")
    env = {"BROKER_PROXY": f"http://127.0.0.1:{free_ports(1)[0]}"}
    own = harness.home / "own-way.toml"
    own.write_text((harness.home / "broker.toml").read_text() + '\n[accounts.acme]\nproxy = ""\n')
    try:
        assert harness.run("rotation canary acme -o json", env=env).json["verdict"] == "proxy"
        direct = harness.ok("--config own-way.toml rotation canary acme -o json", env=env)
        assert direct.json["verdict"] == "ok"
        shown = harness.ok("--config own-way.toml config show -o json", env=env)
        assert shown.json["accounts"] == {"acme": {"proxy": ""}}
    finally:
        own.unlink()


def test_doctor_finds_a_readable_proxy_login(harness: CliHarness, tmp_path: Path) -> None:
    harness.put("promoted")
    login = tmp_path / "proxy.login"
    login.write_text(LOGIN)
    login.chmod(0o644)
    assert codes(harness, 6, BROKER_PROXY_LOGIN_FILE=str(login))["file.mode"] == "error"
    login.unlink()
    assert codes(harness, 0, BROKER_PROXY_LOGIN_FILE=str(login))["file.missing"] == "warning"


def test_unreadable_login_is_named(harness: CliHarness) -> None:
    harness.put("candidate")
    env = {"BROKER_PROXY": "http://127.0.0.1:1", "BROKER_PROXY_LOGIN_FILE": "/nowhere/login"}
    for line in ("rotation canary acme", "config check"):
        ended = harness.run(line, env=env)
        assert ended.code == 2
        assert "/nowhere/login" in ended.err
