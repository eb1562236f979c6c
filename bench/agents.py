"""The agents that bench/agent compares, and its rows. `common.in_venv` comes first."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import common

from broker.embedded.server import find_binary
from tests.support.system import System

OURS, DEFAULT, SECOND, EQUAL = "broker agent", "bao agent, 5m", "bao agent, 1s", "bao agent, equal load"
ROLES: Final = {DEFAULT: "default", SECOND: "second", EQUAL: "equal"}
NAMES: Final = (
    "tls.key",
    "tls.crt",
    "ca.crt",
    "tls-combined.pem",
    "username",
    "password",
    "client_id",
    "manifest.json",
)
_TICK: Final = 0.002  # seconds between looks at the files


@dataclass(frozen=True)
class Agent:
    """An agent that can be started. `stored` is where its files are."""

    command: list[str]
    environment: dict[str, str]
    folder: Path
    stored: Path

    @contextmanager
    def running(self) -> Iterator[int]:
        """Start it; yield its process, and end it by SIGTERM."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        with process:
            try:
                yield process.pid
            finally:
                process.terminate()

    def files(self) -> list[tuple[int, float]]:
        """Return inode and time of each file, fewer if some are missing."""
        found = []
        for name in NAMES:
            with suppress(FileNotFoundError):
                one = (self.stored / name).stat()
                found.append((one.st_ino, one.st_mtime))
        return found

    def has_changed(self, before: list[tuple[int, float]]) -> bool:
        """Whether all files are there, and none is as before."""
        return len(after := self.files()) == len(NAMES) and not {*after} & {*before}


class Bench:
    """The system with its agents, and the rows."""

    def __init__(self, system: System, node: int, audit: Path) -> None:
        self.system, self.node, self.audit = system, node, audit
        self.admin = system.vault.admin
        self.token = system.consumer("acme/reporting")
        self.token.chmod(0o600)
        self.rows: list[common.Row] = []

    def ours(self, address: str, name: str = "ours") -> Agent:
        """Return an agent of the broker."""
        folder = self.system.home / name
        folder.mkdir()
        bundle = f'[[bundles]]\napplication = "acme/reporting"\ndirectory = "{folder}/files"\n'
        (folder / "broker.toml").write_text(f"version = 1\n{bundle}")
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "BROKER_ADDR": address}
        environment["BROKER_AUTH"] = f"token-file:{self.token}"
        return Agent([str(common.installed() / "broker"), "agent"], environment, folder, folder / "files" / "current")

    def prepare(self, values: dict[str, str]) -> None:
        """Give `bao agent` a mount with the values, and roles."""
        call = self.admin.call
        call("POST", "sys/mounts/bench", {"type": "kv", "options": {"version": "2"}})
        call("POST", "bench/data/one", {"data": values})
        call("POST", "sys/auth/bench", {"type": "approle"})
        call("POST", "sys/policies/acl/bench", {"policy": 'path "bench/data/*" { capabilities = ["read"] }'})
        for role in ROLES.values():
            call("POST", f"auth/bench/role/{role}", {"token_policies": ["bench"], "token_ttl": "4h"})

    def theirs(self, name: str, interval: str) -> Agent:
        """Return a `bao agent`."""
        role = ROLES[name]
        folder = self.system.home / role
        (folder / "files").mkdir(parents=True)
        base = f"auth/bench/role/{role}"
        (folder / "role").write_text(self.admin.ask("GET", f"{base}/role-id")["data"]["role_id"])
        (folder / "secret").write_text(self.admin.call("POST", f"{base}/secret-id")["data"]["secret_id"])
        templates = "".join(
            f'template {{\n  destination = "{folder}/files/{name}"\n  perms = "0600"\n  contents = '
            f'"{{{{ with secret \\"bench/data/one\\" }}}}{{{{ index .Data.data \\"{name}\\" }}}}{{{{ end }}}}"\n}}\n'
            for name in NAMES
        )
        (folder / "agent.hcl").write_text(
            f'vault {{ address = "{self.system.vault.settings.address}" }}\n'
            f'template_config {{ static_secret_render_interval = "{interval}" }}\n'
            'auto_auth {\n  method {\n    type = "approle"\n    mount_path = "auth/bench"\n    config = {\n'
            f'      role_id_file_path = "{folder}/role"\n      secret_id_file_path = "{folder}/secret"\n'
            f"      remove_secret_id_file_after_reading = false\n    }}\n  }}\n}}\n{templates}"
        )
        command = [str(find_binary()), "agent", f"-config={folder}/agent.hcl"]
        return Agent(command, {"HOME": str(folder)}, folder, folder / "files")

    def add(self, subject: str, cell: str, values: list[float], unit: str = "ms") -> float:
        """Print and keep a row; return the median."""
        middle = statistics.median(values)
        self.rows.append(common.row(subject, cell, middle, unit, min(values), max(values)))
        print(f"{cell:<28} {subject:<24} {middle:>10.1f} {min(values):>10.1f} {max(values):>10.1f} {unit}", flush=True)
        return middle

    def loads(self, seconds: float) -> Counter[str]:
        """Return the requests at the node in the next `seconds`, by who asks."""
        offset = self.audit.stat().st_size
        time.sleep(seconds)
        found: Counter[str] = Counter()
        for line in self.audit.read_bytes()[offset:].splitlines():
            entry = json.loads(line)
            auth = entry.get("auth", {})
            if entry["type"] == "request" and auth.get("display_name") != "root":
                role = (auth.get("metadata") or {}).get("role_name")
                found[next((name for name, one in ROLES.items() if one == role), OURS)] += 1
        return found


def until(true: Callable[[], bool], seconds: float = 60.0) -> float:
    """Return when it is true; raise `TimeoutError` if it is not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return time.monotonic()
        time.sleep(_TICK)
    raise TimeoutError
