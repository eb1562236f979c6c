"""A system to measure: one OpenBao node, a partner, `broker serve`, and waiters. `common.in_venv` comes first."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from partner_standin import Standin

from broker.compose.graph import Wiring
from broker.copies import replace
from broker.embedded.home import Home
from broker.embedded.server import Running
from broker.embedded.up import Embedded
from broker.model.names import AccountName
from broker.vault.connection import Connection, Phase
from broker.vault.logins import FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.chaos.cluster import Node, awaited, raft_node
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import TestVault

ACME: Final = AccountName("acme")
_logs: Final = itertools.count(1)


@contextmanager
def system_at(folder: Path) -> Iterator[tuple[Node, System]]:
    """Yield a raft node in `folder`, with an audit device, and a system in which nothing has happened yet."""
    with raft_node(folder) as (node, root), Standin(folder / "partner", accounts={LOGIN: PASSWORD}) as partner:
        settings = VaultSettings(node.address, token=root)
        admin = Connection(settings, FixedToken(root))
        apply(admin, plan(admin, Wish()))
        with made_system(TestVault(settings, admin, Embedded(Running(Home(folder), 0), settings)), partner) as system:
            yield node, system


@contextmanager
def serving(system: System, *listen: str) -> Iterator[tuple[str, int]]:
    """Start `broker serve`, logging each request; yield its address and process."""
    log = system.home / f"serve-{next(_logs)}.log"
    environment = {**system.environment, "BROKER_RATE": "0"}
    with log.open("wb") as file:
        process = replace(system, environment=environment).start(
            "serve", "--listen", *listen, "--health", "", stdout=subprocess.DEVNULL, stderr=file
        )
    with process:
        try:
            found = awaited(lambda: re.search(r"^listening on (\S+)", log.read_text(), re.MULTILINE), "the service")
            yield found[1], process.pid
        finally:
            process.terminate()


async def waiting(address: str, token: str, generation: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin to wait at the service of `address` (http://HOST:PORT); return the connection with the answer."""
    host, _, port = address.rpartition("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"account": ACME, "application": "reporting", "generation": generation})
    head = f"POST /v1/wait HTTP/1.1\r\nHost: {host}\r\nX-Vault-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(f"{head}{body}".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return reader, writer


def moved(system: System) -> float:
    """Make another generation current; return when Vault answered the write of the account that did."""
    account: list[float] = []
    announced: list[int] = []

    def observe(phase: Phase, path: str) -> None:
        if phase is Phase.AFTER and path.endswith(f"data/accounts/{ACME}"):
            account.append(time.monotonic())
        if phase is Phase.BEFORE and path.endswith("data/changes"):
            announced.append(len(account))

    with system.broker(Wiring(observer=observe)) as broker:
        if broker.account(ACME).current == broker.account(ACME).generations[-1]:
            broker.rotation.roll_back(ACME)
        else:
            broker.rotation.promote(ACME, broker.account(ACME).generations[-1].number)
    return account[announced[0] - 1]
