"""Records of a run on an audited vault, for the auditor; as a program, the demo on such a vault.

python -m tests.support.audited DIRECTORY
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

from broker.copies import replace
from broker.embedded.config import Options
from broker.embedded.up import Embedded, administered, up
from broker.vault.connection import Connection
from broker.vault.errors import MissingError

__all__ = ["ROOT", "Run", "kept"]

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = ("keys/", "passwords/", "signers/")


@dataclass(frozen=True, slots=True)
class Run:
    """Records of a run: Vault's log, and the stored documents."""

    mount: str
    log: Path
    documents: Path

    def audited(self, *arguments: str) -> tuple[int, str]:
        """Run the auditor, a separate program; return its exit code and what it found."""
        files = ["--mount", self.mount, "--log", str(self.log), "--documents", str(self.documents)]
        command = [sys.executable, "-m", "tests.support.auditor", *files, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + (done.stderr if done.returncode > 1 else "")


def kept(embedded: Embedded, admin: Connection, directory: Path) -> Run:
    """Copy log and documents of `admin`'s mount to `directory`: the log first, since reading is logged too."""
    run = Run(admin.settings.mount, directory / "audit.log", directory / "documents.json")
    run.log.write_bytes(embedded.running.home.audit_log.read_bytes())
    run.documents.write_text(json.dumps(dict(_documents(admin))))
    return run


def _documents(admin: Connection, folder: str = "") -> Iterator[tuple[str, object]]:
    for name in admin.list(folder.rstrip("/")):
        path = f"{folder}{name}"
        if name.endswith("/") and path not in SECRET:
            yield from _documents(admin, path)
        elif not name.endswith("/"):
            try:
                yield path, admin.read(path).data
            except MissingError:
                continue


def _demonstration(directory: Path) -> int:
    """Play `broker demo` on a vault with an audit log, and keep what is left of it before it is gone."""
    from broker_demo import steps

    from broker.cli.main import run

    started: list[Embedded] = []
    stop = steps._stopped

    def with_audit(place: Path, options: Options) -> Embedded:
        started.append(up(place, replace(options, audit=True)))
        return started[0]

    def keeping(place: Path) -> None:
        with administered(started[0]) as admin:
            kept(started[0], admin, directory)
        stop(place)

    with patch("broker.embedded.up.up", with_audit), patch.object(steps, "_stopped", keeping):
        return run(["demo"])


if __name__ == "__main__":
    sys.exit(_demonstration(Path(sys.argv[1])))
