"""From nothing to a fetched fleet list, command by command, as people type them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.system import System


def test_from_account_to_bundle_for_curl(system: System) -> None:
    system.promoted()
    token = system.consumer("acme/reporting")
    target = system.home / "bundle"
    credential = system.ok(
        "bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", str(target),
        "--format", "curl.conf", "-o", "json",
    ).json  # fmt: skip
    assert credential["success"] is True
    assert credential["generation"] == 1
    answer = subprocess.run(
        ["curl", "-sS", "-K", target / "current" / "curl.conf", f"{system.partner.api_url}/fleets"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(answer.stdout)["_embedded"]["fleets"]
    assert system.ok("evidence", "verify", "--all", "-o", "json").json["success"] is True


@pytest.mark.slow
def test_second_certificate_replaces_first(system: System) -> None:
    system.renewed()
    system.ok("rotation", "promote", "acme")
    account = system.account("acme")
    assert account.current is not None
    assert account.current.number == 2
    system.ok("rotation", "retire", "acme", "--generation", "1")
    assert system.run("rotation", "rollback", "acme").code == 6
    assert not system.account("acme").doomed_keys


@pytest.mark.slow
def test_consumer_of_another_is_denied(system: System, tmp_path: Path) -> None:
    system.promoted()
    system.ok("app", "add", "acme/other", "--client-id", "22222222-2222-4222-8222-222222222222")
    token = system.consumer("acme/other")
    ended = system.run(
        "bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", str(tmp_path / "b")
    )
    assert ended.code == 5
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_stopped_holder_removes_its_bundle(system: System, signal_name: str) -> None:
    import signal

    system.promoted()
    token = system.consumer("acme/reporting")
    target = system.home / "held"
    holder = system.start(
        "bundle",
        "get",
        "acme/reporting",
        "--consumer-token-file",
        str(token),
        "--to",
        str(target),
        "--hold",
        "-o",
        "json",
    )
    with holder:
        assert holder.stdout
        while b"}\n" not in (line := holder.stdout.readline()) or line.startswith(b"  "):
            assert line
        assert (target / "current" / "tls.key").exists()
        holder.send_signal(getattr(signal, signal_name))
        holder.wait(20)
    assert not (target / "current").exists()
    assert not list(target.glob("gen-*"))
