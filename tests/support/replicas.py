"""Replicas of the service beside each other: real `broker serve` processes, forked, to be asked, ended and killed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from partner_standin import Standin

from broker.compose import graph
from broker.compose.graph import Wiring
from broker.embedded.up import Embedded
from broker.issuing.batch_issuer import OLDEST
from broker.model import holdings
from broker.vault.connection import Connection
from tests.support.ended import Ended
from tests.support.forked import shared
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import mounted

__all__ = ["ASKED", "Replica", "Replicas", "beside_services", "grounded", "replicas", "with_true_clocks"]

ASKED: Final[Mapping[str, str]] = {"account": ACCOUNT, "application": "reporting"}
FLAT: Final = f"/v1/bundles/{ACCOUNT}/reporting"
_TICK: Final = 0.005


def beside_services(_order: Mapping[str, Any], _tell: object) -> Wiring:
    """Wire a command that runs beside services: it waits for them, as it does in production."""
    graph.PAUSE = OLDEST + graph.LAG
    return Wiring()


def with_true_clocks(order: Mapping[str, Any], tell: object) -> Wiring:
    """Wire a command that also counts no lease longer than it lasts."""
    holdings.SKEW = timedelta(0)  # type: ignore[attr-defined]
    return beside_services(order, tell)


@dataclass
class Replica:
    """One running service. `client` keeps connections open."""

    number: int
    pid: int
    addresses: list[str]
    client: httpx.Client
    changes: Mapping[str, str] = field(default_factory=dict)  # to its environment
    ended: Ended | None = None

    def post(
        self, path: str = "/v1/bundles", headers: Mapping[str, str] | None = None, **body: object
    ) -> httpx.Response:
        """POST a message: by default, ask for a bundle."""
        return self.client.post(path, json=body or ASKED, headers=headers)

    def get(self, headers: Mapping[str, str], path: str = FLAT) -> httpx.Response:
        """GET a bundle as flat JSON."""
        return self.client.get(path, headers=headers)

    @property
    def trace(self) -> Path:
        """The file with the rows of its disturbance."""
        return shared().folder(self.number) / "trace"

    @property
    def health(self) -> str:
        """The address of /livez and /readyz."""
        return self.addresses[1]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.ended is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end, and return it."""
        if self.ended is None:
            self.client.close()
            self.ended = shared().finished(self.number).ended
        return self.ended

    def stop(self) -> Ended:
        """Ask it to end, and wait for that."""
        self.signal(signal.SIGTERM)
        return self.wait()


@dataclass
class Replicas:
    """Starts services of one system, and ends those that still run."""

    system: System
    running: list[Replica] = field(default_factory=list)

    def start(self, *options: str, changes: Mapping[str, str] | None = None, **order: Any) -> Replica:
        """Start a replica and wait until it listens. `order` may disturb it; `changes` are made to its environment."""
        listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
        environment = {**self.system.environment, **self.system.changes, **(changes or {})}
        arguments = ("serve", "--health", "127.0.0.1:0", *listen, *options)
        number = shared().order(*arguments, cwd=self.system.home, environment=environment, **order)
        pid = shared().wait_for("began", number)["pid"]
        addresses: list[str] = []
        while len(addresses) < 2:
            time.sleep(_TICK)
            said = shared().said(number)
            addresses = re.findall(r"^listening on (\S+)(?: .*)?$", said, re.MULTILINE)
            assert _lives(pid), said
        client = httpx.Client(base_url=addresses[0], trust_env=False, timeout=60)
        self.running.append(Replica(number, pid, addresses, client, changes or {}))
        return self.running[-1]

    @property
    def addresses(self) -> list[str]:
        """The addresses for consumers."""
        return [replica.addresses[0] for replica in self.running]

    def end(self) -> None:
        """End all, and assert that none had a fault."""
        for replica in self.running:
            replica.signal(signal.SIGTERM)
        for replica in self.running:
            ended = replica.wait()
            assert "Traceback" not in ended.err, ended.err
            assert "unexpected fault" not in ended.err, ended.err
            assert ended.code in (0, -signal.SIGKILL), ended.err

    def run(
        self, *arguments: str, code: int | None = 0, disturbance: str = "tests.support.replicas:beside_services"
    ) -> Ended:
        """Run a command beside the services."""
        environment = {**self.system.environment, **self.system.changes}
        run = shared().run(*arguments, cwd=self.system.home, environment=environment, disturbance=disturbance)
        assert code is None or run.ended.code == code, f"{arguments}: {run.ended.code} {run.ended.err}"
        return run.ended


@contextmanager
def replicas(system: System, count: int = 0, **order: Any) -> Iterator[Replicas]:
    """Yield `count` running replicas, and the means to start others."""
    made = Replicas(system)
    try:
        for _ in range(count):
            made.start(**order)
        yield made
    finally:
        made.end()


@contextmanager
def grounded(server: tuple[Embedded, Connection], directory: Path) -> Iterator[SavedStates]:
    """Yield a system, and its states, for all tests of a module."""
    with ExitStack() as stack:
        vault = stack.enter_context(mounted(server))
        partner = stack.enter_context(Standin(directory / "partner", accounts={LOGIN: PASSWORD}))
        yield SavedStates(stack.enter_context(made_system(vault, partner)))


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False
