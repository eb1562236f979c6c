"""One bundle of an agent while the service and Vault are started again: it notices nothing, and follows rotations."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from partner_standin import Standin

from broker.agent import holding
from broker.agent.following import Condition, Follower
from broker.agent.tables import BundleTable, Hook
from broker.embedded.home import Home
from broker.embedded.server import Running
from broker.embedded.up import Embedded
from broker.fetching.identity import Identity
from broker.fetching.service import Service
from broker.model.bundle import Wanted
from broker.model.clock import system_clock
from broker.model.names import AccountName
from broker.vault.connection import Connection
from broker.vault.logins import FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.chaos.cluster import Node, awaited, raft_node
from tests.e2e.test_service import Service as Served
from tests.e2e.test_service import serving
from tests.support.ports import free_ports
from tests.support.service_books import leases_in_evidence
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import TestVault

pytestmark = [pytest.mark.slow, pytest.mark.deep]


@contextmanager
def world() -> Iterator[tuple[System, Node]]:
    """Yield a system whose Vault can be killed: a node that keeps what is written."""
    with (
        tempfile.TemporaryDirectory(prefix="broker-restarts-", dir="/dev/shm") as home,
        raft_node(Path(home)) as (node, root),
        Standin(Path(home) / "partner", accounts={LOGIN: PASSWORD}) as partner,
    ):
        settings = VaultSettings(node.address, mount="broker", patience=30.0)
        admin = Connection(settings, FixedToken(root))
        apply(admin, plan(admin, Wish()))
        embedded = Embedded(Running(Home(node.config.parent), 0), settings)
        with made_system(TestVault(settings, admin, embedded), partner) as system:
            yield system, node
        admin.close()


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


def waits(served: Served) -> bool:
    """Whether the agent waits at the service."""
    text = httpx.get(f"{served.addresses[1]}/metrics", trust_env=False, timeout=30).text
    return re.search(r"^credential_broker_waiters 1\b", text, re.MULTILINE) is not None


def test_restarts_leave_an_agent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook, no write and no lease, while generation and lease stand."""
    monkeypatch.setattr(holding, "_CUT", (0.0, 0.1))
    monkeypatch.setattr(holding, "_PAUSE", (0.0, 0.1))
    monkeypatch.setattr(holding, "_POLL", (3600.0, 3600.0))  # the rotation is followed by the wait alone
    with world() as (system, node):
        system.renewed()
        token, listen = system.consumer("acme/reporting"), f"127.0.0.1:{free_ports(1)[0]}"
        heard, root = tmp_path / "heard", system.home / "files"
        hook = Hook(command=("sh", "-c", f"echo $BROKER_GENERATION >> {heard}"))
        wanted = Wanted(AccountName("acme"), "reporting", timedelta(hours=1))
        service = Service(f"http://{listen}", Identity(f"token-file:{token}"), None)
        agent = Follower(BundleTable(wanted, root, hook=hook), service, (), system_clock)

        def books() -> object:
            files = [path for path in root.rglob("*") if path.is_file()]
            written = {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
            return written, heard.read_text(), leases_in_evidence(system)

        with serving(system, "--listen", listen) as served:
            agent.start()
            until(lambda: agent.standing.condition is Condition.OK and agent.hooks.settled and waits(served))
            before = books()
        with serving(system, "--listen", listen) as served:
            until(lambda: waits(served))
            assert books() == before, "the service was started again"
            node.kill()
            node.start()
            awaited(lambda: node.leads, "a leader")
            until(lambda: served.ready().status_code == 200 and waits(served))
            assert books() == before, "Vault was started again"
            system.ok("rotation", "promote", "acme")
            until(lambda: heard.read_text().split() == ["1", "2"])
            agent.stop()
            agent.join()
        assert not root.exists()
        assert len(leases_in_evidence(system)) == 2
