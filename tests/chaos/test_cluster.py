"""A cluster of three that loses its leader under a command, and nodes that know less than others.

Commands speak to one address, as VAULT_ADDR is one. Behind that of a standby the cluster may lose any other node: the
command waits, and goes on with the next leader.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest
from partner_standin import Standin

from broker.compose.graph import Wiring
from broker.embedded.home import Home
from broker.embedded.server import Running
from broker.embedded.up import Embedded
from broker.model.names import AccountName
from broker.vault.connection import Connection, Phase
from broker.vault.logins import FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.chaos.cluster import Cluster, Node, raft_cluster
from tests.support.saved_states import ACCOUNT, LATER, SavedStates
from tests.support.system import LOGIN, PASSWORD, made_system
from tests.support.vault import TestVault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ENDS: Final = frozenset({0, 3, 5, 8})
RETIRE: Final = ("rotation", "retire", ACCOUNT, "--generation", "1")
COMMANDS: Final = {
    "csr new": ("added", ("csr", "new", ACCOUNT)),
    "rotation promote": ("renewed", ("rotation", "promote", ACCOUNT, "--generation", "2")),
    "rotation retire": ("rotated", RETIRE),
}


SLICE: Final = (  # of what make chaos tries
    ("csr new", Node.kill, Phase.BEFORE),
    ("rotation promote", Node.kill, Phase.AFTER),
    ("rotation retire", Node.pause, Phase.AFTER),
)
CASES: Final = [
    pytest.param(
        *case, marks=() if case in SLICE else pytest.mark.chaos, id="-".join((case[0], case[1].__name__, case[2].value))
    )
    for case in product(COMMANDS, (Node.kill, Node.pause), Phase)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with raft_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def saved(cluster: Cluster) -> Iterator[SavedStates]:
    """States of an account on the cluster. Its administrator speaks to whichever node leads when the saved is made."""
    settings = VaultSettings(cluster.leader.address, mount="broker", patience=20.0)
    admin = Connection(settings, FixedToken(cluster.token))
    apply(admin, plan(admin, Wish()))
    vault = TestVault(settings, admin, Embedded(Running(Home(cluster.nodes[0].config.parent), 0), settings))
    with (
        tempfile.TemporaryDirectory(prefix="broker-cluster-test-") as directory,
        Standin(Path(directory) / "partner", accounts={LOGIN: PASSWORD}) as partner,
        made_system(vault, partner) as system,
    ):
        yield SavedStates(system)
    admin.close()


@pytest.fixture(autouse=True)
def healed(cluster: Cluster) -> Iterator[None]:
    """Every test begins, and leaves, with three nodes that are one cluster."""
    cluster.heal()
    yield
    cluster.heal()


@contextmanager
def struck(harm: Callable[[], object], *, at: int, phase: Phase) -> Iterator[Wiring]:
    """Yield a wiring under which `harm` is done at write `at` of a command, from 1, once."""
    seen = {phase: 0}

    def watched(now: Phase, _path: str) -> None:
        if now is phase:
            seen[phase] += 1
            if seen[phase] == at:
                harm()

    yield Wiring(clock=lambda: datetime.now(UTC), observer=watched)
    assert seen[phase] >= at, f"the command made {seen[phase]} writes"


def assert_whole(saved: SavedStates, address: str, arguments: tuple[str, ...]) -> None:
    """The same command again is done or has nothing to do, and what is stored is what the account says."""
    again = saved.run("--timeout", "20s", *arguments, address=address, after=LATER)
    assert again.code == 0, again.err
    saved.settle()
    assert not list(saved.faults())


@pytest.mark.parametrize(("command", "harm", "phase"), CASES)
def test_lost_leader_is_waited_for(
    cluster: Cluster, saved: SavedStates, command: str, harm: Callable[[Node], None], phase: Phase
) -> None:
    state, arguments = COMMANDS[command]
    saved.put(state)
    leader, standby = cluster.leader, cluster.standbys[0]
    with struck(lambda: harm(leader), at=2, phase=phase) as wiring:
        ended = saved.run("--timeout", "20s", *arguments, address=standby.address, wiring=wiring)
        cluster.heal()
        assert ended.code in ENDS, ended.err
        assert ended.code == 0 or "hint:" in ended.err
        if harm is Node.kill:
            assert ended.code == 0, ended.err
    assert_whole(saved, standby.address, arguments)


def test_dead_address_is_reported_in_time(cluster: Cluster, saved: SavedStates) -> None:
    saved.put("rotated")
    leader, standby = cluster.leader, cluster.standbys[0]
    began = time.monotonic()
    with struck(leader.kill, at=1, phase=Phase.BEFORE) as wiring:
        ended = saved.run("--timeout", "2s", *RETIRE, address=leader.address, wiring=wiring)
    assert ended.code == 3, ended.err
    assert "hint:" in ended.err
    assert time.monotonic() - began < 20
    cluster.heal()  # what follows asks each node
    assert_whole(saved, standby.address, RETIRE)


def test_standby_answers_nothing_stale(cluster: Cluster, saved: SavedStates) -> None:
    """Write through one node, then read through another: each read carries the index of a login or a write."""
    saved.put("promoted")
    leader, standby = cluster.leader, cluster.standbys[0]
    for number in range(15):
        name = f"{ACCOUNT}/app-{number}"
        assert saved.run("app", "add", name, address=leader.address).code == 0
        listed = saved.run("app", "list", ACCOUNT, "-o", "json", address=standby.address)
        assert f"app-{number}" in listed.out, f"round {number}: {listed.out}{listed.err}"


def test_every_role_reads_what_one_wrote(cluster: Cluster, saved: SavedStates) -> None:
    """The auditor has long been logged in when the operator writes; a standby alone would show it the past."""
    saved.put("promoted")
    standby = cluster.standbys[0]
    with patch.dict(saved.system.environment, {"VAULT_ADDR": standby.address}), saved.system.broker() as broker:
        name = AccountName(ACCOUNT)
        before = broker.account(name)
        for number in range(15):
            broker.registry.add_application(name, f"app-{number}", "")
            read = broker.account(name)
            assert len(read.applications) == len(before.applications) + number + 1
            assert not read.outbox, f"round {number}: read before the last write, which empties it"


def test_renewal_through_a_standby(cluster: Cluster, saved: SavedStates) -> None:
    standby = cluster.standbys[-1]
    saved.put("promoted")
    for arguments in (
        ("csr", "new", ACCOUNT, "--supersede", "--yes"),
        ("csr", "cancel", ACCOUNT, "--yes"),
        ("rotation", "canary", ACCOUNT),
        ("evidence", "verify", "--all"),
    ):
        ended = saved.run(*arguments, address=standby.address)
        assert ended.code == 0, f"{arguments}: {ended.err}"
    saved.settle()
    assert not list(saved.faults())


def test_cut_off_standby_changes_nothing(cluster: Cluster, saved: SavedStates) -> None:
    """Both others are gone: it may still answer reads, and can neither log anybody in nor write."""
    saved.put("added")
    leader, standbys = cluster.leader, cluster.standbys
    leader.pause()
    standbys[1].pause()
    ended = saved.run("--timeout", "2s", "csr", "new", ACCOUNT, address=standbys[0].address)
    assert ended.code == 3, ended.err
    assert "hint:" in ended.err
    assert not ended.out
    cluster.heal()
    assert_whole(saved, standbys[0].address, ("csr", "new", ACCOUNT))
