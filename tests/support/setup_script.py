"""Run the script that `broker vault setup --print sh` prints."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from broker.embedded.server import find_binary
from broker.vault.connection import Connection
from tests.support.vault import admin_token

__all__ = ["run_script"]


def run_script(
    vault: Connection, folder: Path, text: str, *arguments: str, jwt_mounts: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the script `text` with the real command, as an administrator without root; return how it ended."""
    script = folder / "setup.sh"
    script.write_text(text)
    environment = {
        "BAO_ADDR": vault.settings.address,
        "BAO_TOKEN": admin_token(vault, jwt_mounts=jwt_mounts).reveal(),
        "VAULT_COMMAND": str(find_binary()),
        "HOME": str(folder),
        "PATH": os.defpath,
    }
    return subprocess.run(["sh", script, *arguments], env=environment, capture_output=True, text=True, check=False)
