"""docs/service.md: the requests with curl, and the files by `bundle get`."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Final

import pytest

from tests.e2e.test_service import serving
from tests.support.sources import ROOT
from tests.support.system import PASSWORD, System

pytestmark = pytest.mark.slow
PAGE: Final = ROOT / "docs" / "service.md"


@pytest.mark.peer("curl")
def test_the_commands_of_the_page(system: System) -> None:
    system.promoted()
    system.consumer("acme/reporting", name="reporting")
    curl, wait, fetch = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    with serving(system) as service:
        answers = []
        for line in (curl, wait):
            done = subprocess.run(
                ["sh", "-ec", line.replace("http://127.0.0.1:8250", service.addresses[0])],
                cwd=system.home, env=system.environment, capture_output=True, check=True,
            )  # fmt: skip
            answers.append(json.loads(done.stdout))
        assert answers[0]["secrets"] == {"password": PASSWORD}
        assert answers[1] == {"event": "generation", "generation": 1}
        system.changes = {"BROKER_CONFIG": ""}
        (system.home / "broker.toml").unlink()
        here = {
            "https://broker.example:8443 --ca-file /etc/broker/ca.pem": service.addresses[0],
            "jwt-file:/run/secrets/broker/token": "token-file:reporting.token",
            "/run/acme --hold": "acme",
        }
        for there, ours in here.items():
            assert there in fetch
            fetch = fetch.replace(there, ours)
        for line in fetch.splitlines():
            system.ok(*line.split()[1:])
    assert (system.home / "acme/current/tls.key").exists()
