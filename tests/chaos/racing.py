"""Commands that really overlap: forked processes, held at a gate and released together.

Each has its own sessions, tokens and files. They are slowed down on purpose: seeded pauses before and after writes,
where the windows between reading and writing lie.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.chaos.pauses import DIED
from tests.support.forked import shared

__all__ = ["DIED", "Raced", "Starter", "Wanted"]


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
    """The end of a command. Times are in nanoseconds of the one monotonic clock that all processes share."""

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
    """Starts commands in `home` with `environment`. Enter it; leaving it removes its gates."""

    home: Path
    environment: Mapping[str, str]
    _directory: tempfile.TemporaryDirectory[str] = field(init=False)

    def __enter__(self) -> Starter:
        self._directory = tempfile.TemporaryDirectory(prefix="broker-race-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def at_once(self, *wanted: Wanted) -> list[Raced]:
        """Start all of `wanted`, let them go together, and return how each ended, in the order given."""
        with self._gate() as gate:
            numbers = [self._ordered(each, gate) for each in wanted]
            for number in numbers:
                shared().wait_for("ready", number)
        return [_ended(number, each) for number, each in zip(numbers, wanted, strict=True)]

    def overtaken(self, slow: Wanted, *others: Wanted) -> list[Raced]:
        """Start `slow`, which waits where it says, run `others` one after the other meanwhile, and let it go on."""
        with self._gate("stop") as stop:
            with self._gate() as gate:
                number = self._ordered(slow, gate, stop)
                shared().wait_for("ready", number)
            shared().wait_for("waiting", number)
            ended = [self.at_once(other)[0] for other in others]
        return [_ended(number, slow), *ended]

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
        """Yield a file that holds back every process that asks for a shared lock on it, until this ends."""
        gate = Path(self._directory.name) / name
        descriptor = os.open(gate, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield gate
        finally:
            os.close(descriptor)

    def _ordered(self, wanted: Wanted, gate: Path, stop: Path | None = None) -> int:
        return shared().order(
            *wanted.arguments,
            cwd=self.home,
            environment=self.environment,
            data=wanted.stdin.encode(),
            disturbance="tests.chaos.pauses:disturb",
            gate=str(gate),
            stop=str(stop),
            seed=wanted.seed,
            slowness=wanted.slowness,
            dies_after=wanted.dies_after,
            waits=wanted.waits,
        )


def _ended(number: int, wanted: Wanted) -> Raced:
    finished = shared().finished(number)
    ended = finished.ended
    return Raced(wanted.arguments, ended.code, ended.out, ended.err, finished.began, finished.over)
