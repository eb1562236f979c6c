"""Programs that stand among the consumers of `tests.support.protocol_consumers`: agents, sessions, a command."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.delivery.directory import CURRENT
from tests.support.replicas import ASKED
from tests.support.sessions import CONNECTED, OPENED, Calls
from tests.support.sources import ROOT

__all__ = ["APPLICATIONS", "Beside", "Programs"]

APPLICATIONS: Final = (ASKED["application"], "second", "third")  # of each agent
_TICK: Final = 0.05
_OURS: Final = ("token", "broker.toml", "log", "where", "rotated")
_PROGRAM: Final = """
trap "echo x >> rotated" HUP
dirname "$PARTNER_DIRECTORY" > made; mv made where
while :; do sleep 600 & wait; done
"""


@dataclass(frozen=True)
class Beside:
    """Which programs there are."""

    agents: int
    sessions: Sequence[str]  # libraries
    commands: int = 0  # of `broker exec`

    @property
    def count(self) -> int:
        """How many identities they have."""
        return self.agents + len(self.sessions) + self.commands

    @property
    def waits(self) -> int:
        """How many bundles they hold."""
        return self.count + self.agents * (len(APPLICATIONS) - 1)


@dataclass
class Programs:
    """Programs with `tokens`, at the replicas of `addresses`. `faults` is what must not happen."""

    beside: Beside
    addresses: Sequence[str]
    tokens: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    called: int = 0
    faults: list[str] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _calls: list[Calls] = field(default_factory=list)
    _running: list[tuple[subprocess.Popen[bytes], int]] = field(default_factory=list)
    _homes: list[Path] = field(default_factory=list)

    async def __aenter__(self) -> Programs:
        await asyncio.to_thread(self._start)
        self._life = asyncio.create_task(self._call())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them; what they leave, and how, is a fault."""
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        await asyncio.to_thread(self._end)

    def all_on(self, generation: int) -> bool:
        """Whether every program uses that generation, and has heard of each one once."""
        agents = self._homes[: self.beside.agents]
        heard = [_words(home / f"{name}.hooks") for home in agents for name in APPLICATIONS]
        signals = [len(_words(home / "rotated")) for home in self._homes[self.beside.agents :]]
        assert all(len(numbers) == len(set(numbers)) for numbers in heard), heard
        assert not self.faults, self.faults[:3]
        return (
            all(numbers == [str(number + 1) for number in range(generation)] for numbers in heard)
            and all(number == generation - 1 for number in signals)
            and all(calls.session.manifest.generation == generation for calls in self._calls)
        )

    def files(self) -> dict[str, object]:
        """Return each file that agents and commands have written, but for their logs, and when it was written."""
        found = [path for home in self._homes for path in home.rglob("*") if path.is_file() and path.name != "log"]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    def _start(self) -> None:
        tokens = iter(self.tokens)
        for number in range(self.beside.agents):
            home = self._home(f"agent-{number}", next(tokens))
            lines = ["version = 1"]
            for name in APPLICATIONS:
                hook = f'command = ["sh", "-c", "echo $BROKER_GENERATION >> {home}/{name}.hooks"]'
                table = f'application = "{ASKED["account"]}/{name}"\ndirectory = "{name}"'
                lines += ["[[bundles]]", table, "[bundles.hooks]", hook]
            (home / "broker.toml").write_text("\n".join(lines))
            self._run(home, 0, "agent")
        one = f"{ASKED['account']}/{ASKED['application']}"
        for number in range(self.beside.commands):
            home = self._home(f"exec-{number}", next(tokens))
            (home / "broker.toml").write_text("version = 1\n")
            self._run(home, 128 + 15, "exec", one, "--on-rotation", "HUP", "--", "sh", "-c", _PROGRAM)
        for library in self.beside.sessions:
            home = self._home(library, next(tokens), program=False)
            made = CONNECTED[library](one, address=random.choice(self.addresses), auth=f"token-file:{home}/token")
            self._calls.append(self._stack.enter_context(made))

    def _home(self, name: str, token: str, *, program: bool = True) -> Path:
        home = self.folder / name
        home.mkdir(mode=0o700)
        (home / "token").write_text(token)
        (home / "token").chmod(0o600)
        if program:
            self._homes.append(home)
        return home

    def _run(self, home: Path, code: int, *words: str) -> None:
        given = {"BROKER_ADDR": random.choice(self.addresses), "BROKER_AUTH": f"token-file:{home}/token"}
        own = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "BROKER_CONFIG": str(home / "broker.toml")}
        environment = {"PATH": self.environment["PATH"], "PYTHONPATH": str(ROOT), **given, **own}
        with (home / "log").open("wb") as log:
            command = [sys.executable, "-m", "broker", *words]
            process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
        self._running.append((process, code))

    async def _call(self) -> None:
        """Call the partner with every bundle, again and again; a refusal is a fault."""
        for root in [root for home in self._homes for root in await self._roots(home)]:
            while not (root / CURRENT).exists():
                await asyncio.sleep(_TICK)
            self._calls.append(self._stack.enter_context(OPENED["requests"](root)))
        while True:
            for calls in self._calls:
                status = await asyncio.to_thread(calls.get)
                self.called += 1
                if status != 200:
                    self.faults.append(f"{calls.session}: the partner says {status}")
            await asyncio.sleep(_TICK)

    async def _roots(self, home: Path) -> list[Path]:
        if home.name.startswith("agent"):
            return [home / name for name in APPLICATIONS]
        while not (home / "where").exists():
            await asyncio.sleep(_TICK)
        return [Path((home / "where").read_text().strip())]

    def is_ready(self) -> bool:
        """Whether each program holds its bundles. Raise what ended the calls."""
        if self._life.done():
            self._life.result()
        return len(self._calls) == self.beside.waits

    def _end(self) -> None:
        self._stack.close()
        for process, _ in self._running:
            process.terminate()
        for process, code in self._running:
            if process.wait() != code:
                self.faults.append(f"{process.args!r}: {process.returncode}")
        left = [path for home in self._homes for path in home.rglob("*") if path.is_file()]
        self.faults += [f"left: {path}" for path in left if path.name not in _OURS and path.suffix != ".hooks"]


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []
