"""Commands that really overlap: processes forked from one that has imported everything, held at a gate, let go at once.

Each is a process of its own, with sessions, tokens and files of its own, and starts in a millisecond where a fresh
interpreter takes half a second. What is slow about it is on purpose: seeded pauses before and after its writes, where
the windows between reading and writing lie.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

__all__ = ["DIED", "Raced", "Starter", "Wanted"]

DIED: Final = 137  # the exit code of a command that was told to die
_PATIENCE: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """A command to start: what a person types, and how it is disturbed."""

    arguments: Sequence[str]
    stdin: str = ""
    seed: int = 0  # of its pauses
    slowness: float = 0.0  # seconds a pause lasts on average
    dies_after: str = ""  # exit as killed, once it has written a path that contains this
    waits: str = ""  # "read accounts/ 2": stop before the second read of such a path until the others have ended


@dataclass(frozen=True, slots=True)
class Raced:
    """How a command ended. Times are in nanoseconds of the one monotonic clock that all processes share."""

    arguments: Sequence[str]
    code: int
    out: str
    err: str
    start: int
    end: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Starter:
    """Starts commands in `home` with `environment`. Enter it; leaving it ends every process."""

    home: Path
    environment: Mapping[str, str]
    _process: subprocess.Popen[bytes] = field(init=False)
    _directory: tempfile.TemporaryDirectory[str] = field(init=False)
    _unread: bytes = b""
    _count: int = 0

    def __enter__(self) -> Starter:
        self._directory = tempfile.TemporaryDirectory(prefix="broker-race-")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.support.racing"],
            cwd=Path(__file__).parents[2],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._told(1) == ["loaded"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        self._process.stdout.close()
        self._directory.cleanup()

    def at_once(self, *wanted: Wanted) -> list[Raced]:
        """Start all of `wanted`, let them go together, and return how each ended, in the order given."""
        with self._gate() as gate:
            folders = [self._ordered(each, gate) for each in wanted]
            self._await("ready", folders)
        self._await("done", folders)
        return [_read(folder, each) for folder, each in zip(folders, wanted, strict=True)]

    def overtaken(self, slow: Wanted, *others: Wanted) -> list[Raced]:
        """Start `slow`, which waits where it says, run `others` one after the other meanwhile, and let it go on."""
        with self._gate("stop") as stop:
            with self._gate() as gate:
                folder = self._ordered(slow, gate, stop)
                self._await("ready", [folder])
            self._await("waiting", [folder])
            ended = [self.at_once(other)[0] for other in others]
        self._await("done", [folder])
        return [_read(folder, slow), *ended]

    def run(self, *arguments: str, stdin: str = "") -> Raced:
        """Run one command."""
        return self.at_once(Wanted(arguments, stdin))[0]

    def ok(self, *arguments: str, stdin: str = "") -> Raced:
        """Run one command, which must succeed."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.code == 0, f"broker {' '.join(arguments)}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    @contextmanager
    def _gate(self, name: str = "gate") -> Iterator[Path]:
        """Yield a file that holds back whoever asks for a shared lock on it, until this ends."""
        gate = Path(self._directory.name) / name
        descriptor = os.open(gate, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield gate
        finally:
            os.close(descriptor)

    def _ordered(self, wanted: Wanted, gate: Path, stop: Path | None = None) -> str:
        self._count += 1
        folder = Path(self._directory.name) / str(self._count)
        folder.mkdir()
        (folder / "stdin").write_text(wanted.stdin)
        order = {
            "folder": str(folder),
            "gate": str(gate),
            "arguments": list(wanted.arguments),
            "home": str(self.home),
            "environment": dict(self.environment),
            "seed": wanted.seed,
            "slowness": wanted.slowness,
            "dies_after": wanted.dies_after,
            "waits": wanted.waits,
            "stop": str(stop),
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return str(folder)

    def _await(self, word: str, folders: Sequence[str]) -> None:
        assert sorted(self._told(len(folders))) == sorted(f"{word} {folder}" for folder in folders)

    def _told(self, count: int) -> list[str]:
        """Return the next `count` lines that the processes said."""
        assert self._process.stdout
        deadline = time.monotonic() + _PATIENCE
        while self._unread.count(b"\n") < count:
            left = deadline - time.monotonic()
            assert left > 0, f"waited {_PATIENCE:.0f} s and heard {self._unread!r}"
            if select.select([self._process.stdout], [], [], left)[0]:
                said = os.read(self._process.stdout.fileno(), 65536)
                assert said, "the starter ended"
                self._unread += said
        *lines, self._unread = self._unread.split(b"\n", count)
        return [line.decode() for line in lines]


def _read(folder: str, wanted: Wanted) -> Raced:
    start, end, code = json.loads((Path(folder) / "ended").read_text())
    out, err = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
    return Raced(wanted.arguments, code, out, err, start, end)


# the process that forks


def _serve() -> None:
    import broker

    for module in pkgutil.walk_packages(broker.__path__, "broker."):
        if not module.name.startswith("partner_standin") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: each says itself how it ended
    os.write(1, b"loaded\n")
    with os.fdopen(os.dup(0), "rb") as orders:  # sys.stdin is the commands': what it read ahead, they would read
        for line in iter(orders.readline, b""):
            if os.fork() == 0:
                _obey(json.loads(line))


def _obey(order: Mapping[str, Any]) -> None:
    """Become the command of `order`; never return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder = Path(order["folder"])
    said = os.dup(1)
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", _NEW), (2, "stderr", _NEW)):
        opened = os.open(folder / name, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["home"])
    disturbance = _Disturbance(order, said)
    disturbance.tell("ready")
    _pass(order["gate"])
    disturbance.began = time.monotonic_ns()
    disturbance.end(_run(order, disturbance))


_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _pass(gate: str) -> None:
    descriptor = os.open(gate, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.close(descriptor)


class _Disturbance:
    """What is slow about a command, where it waits, and where it dies."""

    def __init__(self, order: Mapping[str, Any], said: int) -> None:
        self.began = 0
        self._order = order
        self._said = said
        self._dice = random.Random(order["seed"])
        self._where, _, nth = order["waits"].rpartition(" ")
        self._left = int(nth or 0)

    def tell(self, word: str) -> None:
        os.write(self._said, f"{word} {self._order['folder']}\n".encode())

    def pause(self, doing: str, path: str) -> None:
        """Come before a read or a write."""
        kind, _, part = self._where.partition(" ")
        if kind == doing and part in path:
            self._left -= 1
            if self._left == 0:
                self.tell("waiting")
                _pass(self._order["stop"])
        slowness = self._order["slowness"]
        if slowness and self._dice.random() < 0.4:
            time.sleep(self._dice.expovariate(1 / slowness))

    def wrote(self, path: str) -> None:
        """Come after a write."""
        if self._order["dies_after"] and self._order["dies_after"] in path:
            self.end(DIED)

    def end(self, code: int) -> None:
        """Say how it went, and be gone as if killed."""
        ended = time.monotonic_ns()
        sys.stderr.flush()
        (Path(self._order["folder"]) / "ended").write_text(json.dumps([self.began, ended, code]))
        self.tell("done")
        os._exit(code)


def _run(order: Mapping[str, Any], disturbance: _Disturbance) -> int:
    from broker.cli.main import run
    from broker.compose.graph import Wiring
    from broker.vault.connection import Connection
    from broker.vault.observer import Phase

    read = Connection.read

    def slowly(self: Connection, path: str, version: int = 0) -> Any:
        disturbance.pause("read", path)
        return read(self, path, version)

    def watch(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE:
            disturbance.pause("write", path)
        else:
            disturbance.wrote(path)

    Connection.read = slowly  # type: ignore[method-assign]  # in this process, which ends with the command
    return run(order["arguments"], Wiring(observer=watch))


if __name__ == "__main__":
    _serve()
