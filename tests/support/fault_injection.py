"""Commands that meet a fault at a write of your choice, and what they wrote: see `tests.support.fault_process`."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.sources import ROOT
from tests.support.system import Ended, System

__all__ = [
    "Fault",
    "Killable",
    "Point",
    "QuickSystem",
    "Ran",
    "audited_paths",
    "audited_writes",
    "quick",
    "quick_system",
    "signalled",
]

_RANDOM: Final = re.compile(
    r"(?<=reader-)\d+|(?<=broker-new-)\d+|\d{8}-\d{6}-[0-9a-f]{12}|(?<=\.)[0-9a-f]{8}$|(?<=[.-])\d{3,7}$"
)  # chains, pids
PATIENCE: Final = 90.0  # seconds for one command


@dataclass(frozen=True, slots=True)
class Point:
    """One write of a command. `kind`: vault, disk, partner or process."""

    number: int
    kind: str
    what: str

    @property
    def stem(self) -> str:
        """What it is, without what is random in it."""
        return f"{self.kind} {_RANDOM.sub('*', self.what)}"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, what it wrote, and what Python and the observer of `Wiring` saw it write."""

    ended: Ended
    points: tuple[Point, ...]
    audited: tuple[str, ...]
    observed: tuple[tuple[str, str], ...]

    @property
    def code(self) -> int:
        """The exit code; negative: the signal that ended it."""
        return self.ended.code

    @property
    def counts(self) -> dict[str, int]:
        """How many writes of each kind."""
        return dict(sorted(Counter(stem.partition(" ")[0] for stem in self.stems).items()))

    @property
    def stems(self) -> list[str]:
        """What was written, in order. A mount that was just made may answer its first write by "not yet": told once."""
        found = [point.stem for point in self.points]
        return [
            s for s, before in zip(found, ("", *found), strict=False) if not (s == before and s.endswith("/config"))
        ]


Fault = Mapping[str, Any]


def signalled(number: signal.Signals, phase: str) -> Fault:
    """The process gets a signal, `before` or `after` the write."""
    return {"signal": int(number), "phase": phase}


class Killable:
    """Runs `broker` commands through `tests.support.fault_process`. A context manager."""

    def __init__(self, environment: Mapping[str, str], scratch: Path) -> None:
        self._environment = dict(environment)
        self._scratch = scratch
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fault_process", str(theirs.fileno())],
                cwd=ROOT,
                env={**self._environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._channel = ours
        self._lines = ours.makefile("rw")

    def __enter__(self) -> Killable:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._channel.close()
        self._process.wait(PATIENCE)

    def run(
        self,
        *arguments: str,
        cwd: Path,
        data: bytes = b"",
        at: int = 0,
        fault: Fault | None = None,
        later: float = 0,
        changes: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run `broker ARGUMENTS`; at write `at`, if not 0, `fault` befalls it. `later` seconds go by before.

        `changes` are made to our environment; `environment` stands in for all of it.
        """
        files = {name: self._scratch / name for name in ("stdin", "stdout", "stderr", "trace")}
        files["stdin"].write_bytes(data)
        files["trace"].write_bytes(b"")
        order = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": {**(self._environment if environment is None else environment), **(changes or {})},
            "stdin": str(files["stdin"]),
            "out": [str(files["stdout"]), str(files["stderr"])],
            "trace": str(files["trace"]),
            "at": at,
            "fault": dict(fault or {}),
            "later": later,
        }
        self._lines.write(json.dumps(order) + "\n")
        self._lines.flush()
        code = json.loads(self._lines.readline())
        ended = Ended(code, files["stdout"].read_text(), files["stderr"].read_text(errors="replace"))
        return _ran(ended, [json.loads(line) for line in files["trace"].read_text().splitlines()])


def _ran(ended: Ended, rows: Sequence[Sequence[Any]]) -> Ran:
    return Ran(
        ended,
        tuple(Point(*row[1:]) for row in rows if row[0] == "point"),
        tuple(row[1] for row in rows if row[0] == "audit"),
        tuple((row[1], row[2]) for row in rows if row[0] == "observed"),
    )


@dataclass
class QuickSystem(System):
    """A system whose commands are forked from a process that has imported everything: a tenth of a second each."""

    killable: Killable | None = None

    def run(self, *arguments: str, input: str | bytes = b"", timeout: float = 60) -> Ended:  # noqa: A002  # as in System
        assert self.killable
        data = input.encode() if isinstance(input, str) else input
        environment = {**self.environment, **self.changes}
        return self.killable.run(*arguments, cwd=self.home, data=data, environment=environment).ended


@contextmanager
def quick(system: System) -> Iterator[QuickSystem]:
    """Yield `system` with quick commands."""
    with (
        tempfile.TemporaryDirectory(prefix="broker-kill-", dir="/dev/shm") as scratch,
        Killable(system.environment, Path(scratch)) as killable,
    ):
        yield QuickSystem(system.vault, system.partner, system.home, system.environment, killable=killable)


@pytest.fixture(name="system")
def quick_system(system: System) -> Iterator[System]:
    """Stands in for `system` where it is imported: many commands, and no test of how they start."""
    with quick(system) as made:
        yield made


@contextmanager
def audited_writes(log: Path) -> Iterator[list[str]]:
    """Yield a list that holds, at the end, the path of every request but reads in Vault's own audit `log`."""
    begin = log.stat().st_size
    paths: list[str] = []
    yield paths
    paths += audited_paths(log, begin)


def audited_paths(log: Path, begin: int = 0) -> list[str]:
    """Return the path of every request but reads that Vault's audit `log` has from byte `begin` on."""
    with log.open("rb") as file:
        file.seek(begin)
        entries = [json.loads(line) for line in file]
    requests = [entry["request"] for entry in entries if entry["type"] == "request"]
    return [request["path"] for request in requests if request["operation"] not in ("read", "list", "help")]
