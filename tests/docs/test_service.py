"""docs/service.md: the requests with curl, the files by `bundle get`, and consumers that show a JWT."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Final

import pytest

from tests.e2e.test_service import serving
from tests.support.issuer import Issuer
from tests.support.sources import ROOT
from tests.support.system import PASSWORD, System
from tests.support.vault import admin_token

pytestmark = pytest.mark.slow
BLOCKS: Final = re.findall(
    r"^```(sh|toml)\n(.*?)^```$", (ROOT / "docs" / "service.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def block(kind: str, words: str) -> str:
    """Return the block of the page that has `words` in it."""
    (found,) = (text for language, text in BLOCKS if language == kind and words in text)
    return str(found)


@pytest.mark.peer("curl")
def test_the_commands_of_the_page(system: System) -> None:
    system.promoted()
    system.consumer("acme/reporting", name="reporting")
    curl, wait, fetch = block("sh", "/v1/bundles"), block("sh", "/v1/wait"), block("sh", "init --consumer")
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
        for line in block("sh", "lease renew").replace("/run/acme", "acme").splitlines():
            system.ok(*line.partition("#")[0].split()[1:])
    assert not list((system.home / "acme").iterdir())


def test_its_issuers_and_consumers(system: System) -> None:
    system.promoted()
    ci, pods = Issuer("https://ci.example"), Issuer("https://kubernetes.default.svc.cluster.local")
    for name, issuer in (("ci", ci), ("pods", pods)):
        (system.home / f"{name}.pem").write_text(issuer.public_pem)
    table = block("toml", "[issuers.ci]").replace('jwks_url = "https://ci.example/jwks.json"', 'keys_file = "ci.pem"')
    with (system.home / "broker.toml").open("a") as file:
        file.write(f"\n{table}")
    mounts = [f"{system.vault.settings.mount}-jwt/{name}" for name in ("ci", "pods")]
    system.changes = {"VAULT_TOKEN": admin_token(system.vault.admin, jwt_mounts=mounts).reveal()}
    system.ok("vault", "setup")
    *enrolling, listing, removing = block("sh", "vault enrol").splitlines()
    for line in enrolling:
        system.ok(*line.split()[1:])
    shown = system.ok(*listing.split()[1:]).out
    assert "repo:acme/deploy:ref:refs/heads/main" in shown
    assert "system:serviceaccount:shop:web" in shown
    for jwt in (ci.jwt("repo:acme/deploy:ref:refs/heads/main"), pods.jwt("system:serviceaccount:shop:web")):
        (system.home / "jwt").write_text(jwt)
        (system.home / "jwt").chmod(0o600)
        system.ok("policy", "check", "acme/reporting", "--jwt-file", "jwt")
    system.ok(*removing.split()[1:])
    assert "deploy" not in system.ok(*listing.split()[1:]).out
    system.ok("vault", "enrol", "reporting", "--right", "acme/reporting", "--token-file", "reporting.token")
    system.ok(*block("sh", "policy check").split()[1:])
    for mount in mounts:
        system.vault.admin.call("DELETE", f"sys/auth/{mount}")
