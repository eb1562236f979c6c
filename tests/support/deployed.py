"""Processes as a file of deploy/ describes them: its arguments and environment, with its paths and ports moved here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.sources import ROOT

DEPLOY: Final = ROOT / "deploy"
_BIN: Final = Path(sys.executable).parent


@dataclass(frozen=True)
class Workload:
    """A command of a deployment. `places` maps a text of it, a directory or an address, to the one used here."""

    command: list[str]
    environment: Mapping[str, str]
    places: Mapping[str, str] = field(default_factory=dict)

    def moved(self, text: str) -> str:
        """Return `text` with each of `places` replaced, the longest first."""
        for there in sorted(self.places, key=len, reverse=True):
            text = text.replace(there, self.places[there])
        return text

    @property
    def argv(self) -> list[str]:
        """The command line for this machine: programs of the project come from this environment."""
        program, *arguments = map(self.moved, self.command)
        ours = _BIN / Path(program).name
        return [str(ours) if ours.exists() else program, *arguments]

    @contextmanager
    def running(self, *prefix: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start it with nothing but its environment, below `prefix`; yield it, and end it."""
        environment = {"PATH": "/usr/bin:/bin", **{name: self.moved(text) for name, text in self.environment.items()}}
        with subprocess.Popen([*prefix, *self.argv], env=environment, **options) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
