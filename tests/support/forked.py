"""Commands in processes that are forked from one which has imported everything: see `tests.support.fork_server`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.ended import Ended
from tests.support.sources import ROOT

__all__ = ["Finished", "Forked", "shared"]

PATIENCE: Final = 90.0  # seconds for one command
_WORLD: Final = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended: how, when on the monotonic clock (ns), and the rows its disturbance wrote down."""

    ended: Ended
    began: int
    over: int
    trace: Sequence[Sequence[Any]]


@dataclass
class Forked:
    """The process that forks, from `start` to `close`."""

    _channel: socket.socket
    _process: subprocess.Popen[bytes]
    _scratch: tempfile.TemporaryDirectory[str]
    _events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def start(cls) -> Forked:
        """Start the process; it answers once it has imported everything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-B", "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env=_WORLD,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return cls(ours, process, tempfile.TemporaryDirectory(prefix="broker-forked-", dir="/dev/shm"))

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait(PATIENCE)
        self._scratch.cleanup()

    @property
    def pid(self) -> int:
        """The process whose children the commands are."""
        return self._process.pid

    def run(self, *arguments: str, **order: Any) -> Finished:
        """Run `broker ARGUMENTS` to its end, as `order` starts it."""
        return self.finished(self.order(*arguments, **order))

    def order(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str], data: bytes = b"", **more: object
    ) -> int:
        """Start `broker ARGUMENTS` and return the order's number; `more` goes to its disturbance."""
        number = next(self._numbers)
        folder = self.folder(number)
        folder.mkdir()
        (folder / "stdin").write_bytes(data)
        order = {
            "number": number,
            "folder": str(folder),
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": dict(environment),
            "disturbance": "",
            **more,
        }
        self._channel.settimeout(PATIENCE)
        self._channel.send(json.dumps(order).encode())
        return number

    def wait_for(self, event: str, number: int, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the event of order `number`, waiting until it comes."""
        deadline = time.monotonic() + timeout
        while not (found := [e for e in self._events if (e["event"], e["number"]) == (event, number)]):
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            text = self._channel.recv(1 << 16)
            assert text, "the process that forks has ended"
            self._events.append(json.loads(text))
            assert event == "ended" or self._events[-1]["event"] != "ended" or self._events[-1]["number"] != number
        return found[0]

    def finished(self, number: int, timeout: float = PATIENCE) -> Finished:
        """Wait for the end of order `number` and return its result."""
        ended = self.wait_for("ended", number, timeout)
        times = {e["event"]: e["at"] for e in self._events if e["number"] == number}
        self._events = [e for e in self._events if e["number"] != number]
        folder = self.folder(number)
        out, err = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        trace = folder / "trace"
        rows = [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []
        shutil.rmtree(folder)
        over = times.get("over", ended["at"])
        return Finished(Ended(ended["code"], out, err), times.get("began", over), over, rows)

    def said(self, number: int) -> str:
        """Return what order `number` has written to stderr so far."""
        return (self.folder(number) / "stderr").read_text(errors="replace")

    def folder(self, number: int) -> Path:
        """Return where order `number` keeps its files until it is finished."""
        return Path(self._scratch.name) / str(number)


_shared: list[Forked] = []


def shared() -> Forked:
    """Return the one of this session, which starts when it is first asked for."""
    if not _shared:
        _shared.append(Forked.start())
    return _shared[0]


@pytest.fixture(scope="session", autouse=True)
def _shared_ends() -> Iterator[None]:
    yield
    with contextlib.suppress(IndexError):
        _shared.pop().close()
