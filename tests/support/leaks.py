"""Watch commands from all sides: what they print, what the process list shows of them, what they leave anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ended import Ended
from tests.support.forked import shared
from tests.support.secret_marks import Marks
from tests.support.system import System

__all__ = ["CHANNELS", "Watch"]

CHANNELS = ("output", "processes", "vault", "partner", "files", "audit")
_SENSITIVE = ("keys/", "mail/", "passwords/", "signers/")  # where secrets are meant to be
_TOKEN = re.compile(rb"(?<![A-Za-z0-9_.-])(?:hv)?[sbr]\.[A-Za-z0-9]{24,}")  # of Vault and OpenBao
_LEASE = b"eyJhbGciOiJIUzI1NiI"  # {"alg":"HS256": only leases are signed so


@dataclass
class Watch:
    """A system whose commands are watched. `expected` are files and folders where secrets are meant to be."""

    system: System
    audit_log: Path
    marks: list[Marks] = field(default_factory=list)
    expected: set[Path] = field(default_factory=set)
    ran: set[tuple[str, ...]] = field(default_factory=set)
    seen: dict[str, list[tuple[str, bytes]]] = field(default_factory=lambda: {name: [] for name in CHANNELS})

    def run(self, *arguments: str, code: int | None = 0, input: str | bytes = b"") -> Ended:  # noqa: A002  # as subprocess
        """Run `broker ARGUMENTS`, which must end with `code` if one is given, and keep all that can be seen of it."""
        label = " ".join(arguments)
        with self._listed(shared().pid, label):
            ended = self.system.run(*arguments, input=input)
        self._keep(label, ended)
        assert code in (None, ended.code), f"broker {label}: {ended.code}\n{ended.out}\n{ended.err}"
        self.ran |= {arguments[:n] for n in (1, 2)}
        return ended

    def watched(self, command: list[str], label: str, input: str | bytes = b"") -> Ended:  # noqa: A002
        """Run any command and keep all that can be seen of it."""
        data = input.encode() if isinstance(input, str) else input
        environment = {**self.system.environment, **self.system.changes}
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with (
            subprocess.Popen(command, cwd=self.system.home, env=environment, **pipes) as process,
            self._listed(process.pid, label),
        ):
            out, err = process.communicate(data, 60)
        ended = Ended(process.returncode, out.decode(), err.decode())
        self._keep(label, ended)
        return ended

    @contextmanager
    def _listed(self, pid: int, label: str) -> Iterator[None]:
        """Keep what the process list shows of `pid` and its descendants meanwhile."""
        listed = _Listed(pid)
        listed.start()
        try:
            yield
        finally:
            listed.ended.set()
            listed.join()
        self.seen["processes"] += [(f"{name} during {label}", content) for name, content in listed.found]

    def _keep(self, label: str, ended: Ended) -> None:
        said = (("stdout", ended.out), ("stderr", ended.err))
        self.seen["output"] += [(f"{name} of {label}", text.encode()) for name, text in said]

    def mark(self, name: str, secret: str | bytes) -> None:
        """Look for `secret` from now on, in all that was seen before too."""
        self.marks.append(Marks(name, secret.encode() if isinstance(secret, str) else secret))

    def searched(self, channel: str) -> tuple[int, list[str]]:
        """Return how many octets of `channel` were searched, and what was found in them."""
        places = [*self.seen[channel], *self._left(channel)]
        faults = [f"{where}: {fault}" for where, data in places for fault in self._faults(data)]
        return sum(len(data) for _, data in places), faults

    def _faults(self, data: bytes) -> Iterator[str]:
        for mark in self.marks:
            if names := mark.found_in(data):
                yield f"{mark.name} as {', '.join(names)}"
        if match := _TOKEN.search(data):
            yield f"a token, {match[0][:8]!r}…"
        if _LEASE in data:
            yield "a lease"

    def _left(self, channel: str) -> Iterator[tuple[str, bytes]]:
        """Yield what commands have left in `channel`, as it is now."""
        if channel == "vault":
            yield from self._documents("")
            yield from self._rights()
        elif channel == "partner":
            yield from (("log", repr(entry).encode()) for entry in self.system.partner.log.entries())
        elif channel == "files":
            yield from self._files()
        elif channel == "audit":
            yield "audit log", self.audit_log.read_bytes()

    def _documents(self, folder: str) -> Iterator[tuple[str, bytes]]:
        admin, mount = self.system.vault.admin, self.system.vault.settings.mount
        for name in admin.list(folder.rstrip("/")):
            path = f"{folder}{name}"
            if path.startswith(_SENSITIVE):
                continue
            if name.endswith("/"):
                yield from self._documents(path)
                continue
            metadata = admin.ask("GET", f"{mount}/metadata/{path}")
            yield f"metadata of {path}", json.dumps(dict(metadata), default=str).encode()
            yield path, json.dumps(dict(admin.read(path).data), ensure_ascii=False).encode()

    def _rights(self) -> Iterator[tuple[str, bytes]]:
        admin = self.system.vault.admin
        for folder in ("sys/policies/acl", "identity/entity/name"):
            for name in admin.ask("LIST", folder)["data"]["keys"]:
                answer: dict[str, Any] = dict(admin.ask("GET", f"{folder}/{name}"))
                yield f"{folder}/{name}", json.dumps(answer["data"]).encode()

    def _files(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self.system.home.rglob("*")):
            if path.is_file() and not any(path == one or one in path.parents for one in self.expected):
                yield str(path), path.read_bytes()
                yield f"name of {path}", str(path).encode()


class _Listed(threading.Thread):
    """Reads command line and environment of a process and its descendants, again and again."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.ended = threading.Event()
        self.found: set[tuple[str, bytes]] = set()

    def run(self) -> None:
        while not self.ended.wait(0.005):
            for pid in _descendants(self.pid):
                for name in ("cmdline", "environ", "comm"):
                    content = _read(Path(f"/proc/{pid}/{name}"))
                    if content:
                        self.found.add((name, content))


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split():
        yield from _descendants(int(child))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
