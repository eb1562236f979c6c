"""docs/agent.md: its configuration is read, its commands are typed, its tables are those of the code."""

from __future__ import annotations

import re
import shlex
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from broker.agent.following import Condition
from broker.agent.probe import probe
from tests.e2e.test_service import serving
from tests.support.system import System

PAGE: Final = (Path(__file__).parents[2] / "docs" / "agent.md").read_text(encoding="utf-8")
COMMANDS: Final = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^broker .*$", PAGE, re.MULTILINE)]


@pytest.mark.slow
def test_its_configuration_works(system: System) -> None:
    """Against a real service: a rotation reaches copies and hook, and the older lease waits for the hook."""
    system.renewed()
    known = system.account("acme").application("reporting").client_id
    system.ok("app", "add", "acme/fleet", "--client-id", known)
    token = system.consumer("acme/reporting", "acme/fleet")
    systemctl, reloads = system.home / "bin/systemctl", system.home / "reloads"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\n[ -e {reloads}.fail ] && exit 1\necho "$@" >> {reloads}\n')
    systemctl.chmod(0o755)
    with serving(system) as service:
        places = {
            "https://broker.example:8443": service.addresses[0],
            "jwt-file:/run/secrets/broker/token": f"token-file:{token}",
            "/run/broker-agent": str(system.home / "run"),
            "/etc/nginx/tls": str(system.home),
            "127.0.0.1:8253": "127.0.0.1:0",
            "/usr/local/bin/page-us": "/bin/true",
        }
        text = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
        for there, here in places.items():
            assert there in text
            text = text.replace(there, here)
        (system.home / "agent.toml").write_text(text)
        (system.home / "run").mkdir(mode=0o700)
        path = f"{systemctl.parent}:{system.environment['PATH']}"
        system.changes = {"BROKER_CONFIG": str(system.home / "agent.toml"), "PATH": path, "VAULT_ADDR": ""}
        check, once, stays = COMMANDS
        system.ok(*check)
        system.ok(*once)
        copy = system.home / "partner.pem"
        first = copy.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o640
        assert reloads.read_text() == "reload nginx.service\n"
        Path(f"{reloads}.fail").touch()
        with system.start(*stays) as process:
            while probe(str(system.home / "run/agent.sock"), "/readyz"):
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            agent, system.changes = system.changes, {}
            system.ok("rotation", "promote", "acme")
            while copy.read_bytes() == first:
                time.sleep(0.01)
            assert copy.read_bytes() == (system.home / "run/fleet/current/tls-combined.pem").read_bytes()
            assert "reader" in system.run("rotation", "retire", "acme", "--generation", "1").err, "it has not moved"
            Path(f"{reloads}.fail").unlink()
            while reloads.read_text().count("reload") < 2:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate()
            assert (process.returncode, b"PRIVATE KEY" in said) == (0, False)
        system.changes = agent
        assert not list((system.home / "run").iterdir())
        assert not copy.exists()
        system.changes = {}
        system.ok("rotation", "retire", "acme", "--generation", "1")


def test_every_reason_is_on_the_page() -> None:
    assert not [one.value for one in Condition if one is not Condition.STARTING and f"`{one.value}`" not in PAGE]
