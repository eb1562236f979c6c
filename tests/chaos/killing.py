"""Commands that meet a fault at a write of your choice, and what they wrote: see `tests.chaos.points`."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.ended import Ended
from tests.support.forked import shared

__all__ = [
    "Fault",
    "Killable",
    "Point",
    "Ran",
    "audited_paths",
    "audited_writes",
    "signalled",
]

_RANDOM: Final = re.compile(
    r"(?<=reader-)\d+|(?<=broker-new-)\d+|\d{8}-\d{6}-[0-9a-f]{12}|(?<=\.)[0-9a-f]{8}$|(?<=[.-])\d{3,7}$"
)  # chains, pids


@dataclass(frozen=True, slots=True)
class Point:
    """One write of a command. `kind`: vault, disk, partner, mail or process."""

    number: int
    kind: str
    what: str

    @property
    def stem(self) -> str:
        """Name of the point, without random parts."""
        return f"{self.kind} {_RANDOM.sub('*', self.what)}"


@dataclass(frozen=True, slots=True)
class Ran:
    """The end of a command, its writes, and the writes that Python and the observer of `Wiring` saw."""

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
        """Number of writes of each kind."""
        return dict(sorted(Counter(stem.partition(" ")[0] for stem in self.stems).items()))

    @property
    def stems(self) -> list[str]:
        """Writes in order. A new mount may answer its first write with "not yet": that repeat is left out."""
        found = [point.stem for point in self.points]
        return [
            s for s, before in zip(found, ("", *found), strict=False) if not (s == before and s.endswith("/config"))
        ]


Fault = Mapping[str, Any]


def signalled(number: signal.Signals, phase: str) -> Fault:
    """The process gets a signal, `before` or `after` the write."""
    return {"signal": int(number), "phase": phase}


@dataclass
class Killable:
    """Runs `broker` commands that meet faults at their writes, with `environment`."""

    environment: Mapping[str, str]

    def run(
        self,
        *arguments: str,
        cwd: Path,
        data: bytes = b"",
        at: int = 0,
        fault: Fault | None = None,
        later: float = 0,
        changes: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run `broker ARGUMENTS`; at write `at`, if not 0, inject `fault`. Its clock is `later` seconds ahead.

        `changes` are made to the environment.
        """
        finished = shared().run(
            *arguments,
            cwd=cwd,
            environment={**self.environment, **(changes or {})},
            data=data,
            disturbance="tests.chaos.points:disturb",
            at=at,
            fault=dict(fault or {}),
            later=later,
        )
        return _ran(finished.ended, finished.trace)


def _ran(ended: Ended, rows: Sequence[Sequence[Any]]) -> Ran:
    return Ran(
        ended,
        tuple(Point(*row[1:]) for row in rows if row[0] == "point"),
        tuple(row[1] for row in rows if row[0] == "audit"),
        tuple((row[1], row[2]) for row in rows if row[0] == "observed"),
    )


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
