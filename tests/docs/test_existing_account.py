"""The page on an account that exists already: its commands run in order, in a Vault that other teams use too."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.outside import made_outside
from tests.support.sources import ROOT
from tests.support.system import PASSWORD, System
from tests.support.vault import token_of

BLOCKS: Final = re.findall(
    r"^```sh\n(.*?)^```$", (ROOT / "docs" / "existing-account.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def typed(blocks: list[str], url: str) -> str:
    """Return the page's lines as a script: every new account is at the stand-in, and nobody is there to confirm it."""
    new = f"--environment stand-in --base-url {url} --yes"
    return "\n".join(re.sub(r"(broker account import \S+)", rf"\1 {new}", block) for block in blocks)


@pytest.mark.slow
@pytest.mark.peer("keytool")
def test_commands_of_the_page_import_accounts(system: System) -> None:
    admin, partner, home = system.vault.admin, system.partner, system.home
    acme, fleet, depot = (made_outside(partner) for _ in range(3))
    (home / "old-set").mkdir()
    for name, content in acme.files.items():
        (home / "old-set" / name).write_bytes(content)
    admin.call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "1"}})
    fields = {
        "private_key": fleet.key.decode(),
        "certificate": base64.b64encode(fleet.certificate + fleet.cas).decode(),
        "password": base64.b64encode(PASSWORD.encode()).decode(),
    }
    admin.call("POST", "secret/partner/fleet", fields)
    admin.call("POST", "secret/elsewhere", {"of": "another team"})
    admin.call("PUT", "sys/policies/acl/me", {"policy": 'path "secret/partner/*" { capabilities = ["read"] }'})
    data = "".join(f"  {name}: {base64.b64encode(content).decode()}\n" for name, content in depot.files.items())
    (home / "secret.yaml").write_text(f"apiVersion: v1\nkind: Secret\ndata:\n{data}")
    (home / "passphrase.txt").write_text("of-the-store")
    (home / "password.txt").write_text(PASSWORD)
    described = partner.described()
    environment = system.environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ISSUING_CA": str(described["issuing_ca_sha256"]),
        "SERVER_CA": str(described["server_ca_sha256"]),
        "CLIENT_ID": acme.client_id,
        "MY_TOKEN": token_of(admin, policies=["me"]).reveal(),
        "PASSPHRASE": "of-the-store",
    }
    answering = next(n for n, block in enumerate(BLOCKS) if "answer.zip" in block)
    try:
        run(typed(BLOCKS[:answering], partner.api_url), home, environment)
        (home / "answer.zip").write_bytes(partner.sign((home / "mzp.csr").read_bytes()).zip())
        said = run(typed(BLOCKS[answering:], partner.api_url), home, environment)
        assert "nginx on web-1 has no copy" in said
        for account in ("acme", "fleet", "depot", "hand"):
            current = system.account(account).current
            assert current is not None, account
        assert admin.ask("GET", "secret/elsewhere")["data"] == {"of": "another team"}
        assert admin.ask("GET", "secret/partner/fleet")["data"] == fields, "the source is left as it was"
    finally:
        admin.call("DELETE", "sys/mounts/secret")


def run(script: str, home: Path, environment: dict[str, str]) -> str:
    ended = subprocess.run(
        ["bash", "-euc", script], cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr
