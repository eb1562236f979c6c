"""The page on an application in your own Vault, typed in a Vault that others use by an administrator without root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.vault.connection import Connection
from broker.vault.logins import FixedToken
from tests.support.sources import ROOT
from tests.support.vault import with_root_token

BLOCKS: Final = re.findall(
    r"^```sh\n(.*?)^```$", (ROOT / "docs" / "own-vault.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
# The logins on the host where each block is typed, as the page's table has them; None: all, as setup made them
HOSTS: Final[Sequence[Sequence[str] | None]] = (
    None,  # the team that runs Vault: its policy
    None,  # the administrator: set-up
    ("operator", "rotator", "canary"),  # the platform team
    ("auditor",),  # the administrator: enrol
    (),  # the application: AppRole
    (),  # the team that runs Vault: JWT
    (),  # the application: JWT
    ("server",),  # the service
    (),  # the application: bundle
    ("auditor",),
)
MOVE: Final = """host() {
  mkdir -p away; mv roles/* away/ 2>/dev/null || true
  for role in "$@"; do mv away/"$role" roles/; done
}"""
KEY: Final = ec.generate_private_key(ec.SECP256R1())
LIMITS: Final = {"cas_required": False, "max_versions": 0}
OTHERS: Final = {"host": "db.example", "password": "theirs"}


@contextmanager
def used_by_others() -> Iterator[tuple[Connection, str]]:
    """Yield a Vault with a KV mount of another team and a JWT login that a platform uses; and its root token."""
    with with_root_token() as settings:
        assert settings.token
        vault = Connection(settings, FixedToken(settings.token))
        vault.call("POST", "secret/data/platform/db", {"data": OTHERS})
        vault.call("POST", "sys/auth/jwt", {"type": "jwt"})
        public = KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        vault.call("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [public.decode()]})
        yield vault, settings.token.reveal()
        vault.close()


def typed(address: str, token: str) -> str:
    """Return the blocks as one script, with a Vault's address, and the token of the team that runs it."""
    lines = [MOVE]
    for block, host in zip(BLOCKS, HOSTS, strict=True):
        lines += [f"host {' '.join(host)}"] if host is not None else []
        lines.append(block.replace("VAULT_TOKEN=…", f"VAULT_TOKEN={token}"))
    lines.append("chmod 600 reporting-jwt.token")
    other = "--config app.toml --consumer-token-file reporting-jwt.token --to other"
    lines.append(f"broker bundle get acme/reporting {other} -o json")
    return "\n".join(lines).replace("https://vault.example:8200", address)


@pytest.mark.slow
@pytest.mark.peer("curl")
def test_its_page_leads_to_a_bundle() -> None:
    with (
        used_by_others() as (vault, token),
        tempfile.TemporaryDirectory(prefix="broker-page-", dir="/dev/shm") as directory,
    ):
        home = Path(directory)
        now = datetime.now(UTC)
        claims = {"sub": "reporting", "iat": now, "nbf": now, "exp": now + timedelta(minutes=10)}
        (home / "reporting.jwt").write_text(jwt.encode(claims, KEY, "ES256"))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ended = subprocess.run(
            ["bash", "-euc", f"trap 'kill $(jobs -p); wait' EXIT\n{typed(vault.settings.address, token)}"],
            cwd=home, env={"PATH": path, "HOME": directory}, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "no errors" in ended.stdout + ended.stderr
        assert '"fleets"' in ended.stdout
        assert "bundle-issued" in ended.stdout
        assert '"generation": 1' in ended.stdout
        administrator = vault.ask("POST", "auth/token/lookup", {"token": (home / "admin.token").read_text().strip()})
        assert administrator["data"]["policies"] == ["broker-admin", "default"]
        assert vault.ask("GET", "secret/data/platform/db")["data"]["data"] == OTHERS
        kept = vault.ask("GET", "secret/config")["data"]
        assert {name: kept[name] for name in LIMITS} == LIMITS
