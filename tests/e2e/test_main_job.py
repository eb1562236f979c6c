"""From nothing to a fetched fleet list, command by command, as people type them."""

from __future__ import annotations

import json
import signal
import subprocess

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
def test_stopped_holder_removes_its_bundle(system: System) -> None:
    """Each signal that asks to end is in tests/test_signals.py."""
    system.promoted()
    token = system.consumer("acme/reporting")
    target = system.home / "held"
    words = ("--consumer-token-file", str(token), "--to", str(target), "--hold", "-o", "json")
    holder = system.start("bundle", "get", "acme/reporting", *words)
    with holder:
        assert holder.stdout
        while b"}\n" not in (line := holder.stdout.readline()) or line.startswith(b"  "):
            assert line
        assert (target / "current" / "tls.key").exists()
        holder.send_signal(signal.SIGTERM)
        holder.wait(20)
    assert not (target / "current").exists()
    assert not list(target.glob("gen-*"))
