"""Processes as a file of deploy/ describes them: its arguments and environment, with its paths and ports moved here."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

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


def entrypoint(target: str) -> list[str]:
    """Return the ENTRYPOINT of an image, by the name of its stage in the Containerfile."""
    text = (DEPLOY / "image" / "Containerfile").read_text(encoding="utf-8")
    stage = text.partition(f" AS {target}\n")[2].partition("\nFROM ")[0]
    return list(json.loads(re.findall(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)[0]))


@functools.cache
def manifests(directory: str) -> list[dict[str, Any]]:
    """Return the manifests that Kustomize makes of a directory below deploy/kubernetes."""
    command = (_BIN / "kubectl", "kustomize", DEPLOY / "kubernetes" / directory)
    built = subprocess.run(command, capture_output=True, check=True, text=True)
    return list(yaml.safe_load_all(built.stdout))
