"""Consumers that speak the protocol, at two replicas: a rotation, a restart, a sealed Vault and a new leader.

No call of theirs that the partner would accept fails, none stays on the old generation, and a restart makes no lease.
"""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from partner_standin import Standin

from broker.embedded.home import Home
from broker.embedded.server import Running
from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from broker.vault.layout import right
from broker.vault.logins import FixedToken
from broker.vault.policies import consumer_policy
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.chaos.cluster import raft_cluster
from tests.support.ports import free_ports
from tests.support.protocol_consumers import Crowd
from tests.support.proxy import Cue, Fault, proxied
from tests.support.replicas import Replica, Replicas, grounded, replicas
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.service_books import leases_in_evidence
from tests.support.system import LOGIN, PASSWORD, made_system
from tests.support.vault import TestVault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WAITERS = re.compile(r"^credential_broker_waiters (\d+)", re.MULTILINE)


def crowd_of(admin: Connection, count: int) -> list[str]:
    """Return tokens of so many consumers, each an entity of its own, made as an administrator would by hand."""
    policy = f"crowd-{admin.settings.mount}"
    hcl = consumer_policy([right("stellantis", "stand-in", ACCOUNT, "reporting")])
    admin.call("POST", f"sys/policies/acl/{policy}", {"policy": hcl})
    role = {"allowed_policies": [policy], "allowed_entity_aliases": [f"{policy}-*"], "token_no_default_policy": True}
    admin.call("POST", f"auth/token/roles/{policy}", {**role, "orphan": True})
    made = []
    for number in range(count):
        wanted = {"entity_alias": f"{policy}-{number}", "policies": [policy], "ttl": "4h"}
        made.append(admin.call("POST", f"auth/token/create/{policy}", wanted)["auth"]["client_token"])
    return made


def versions(admin: Connection) -> dict[str, int]:
    """Return what the service has written: each record of a consumer, and how many entries of evidence."""
    found = {name: admin.read(f"consumers/{name}").version for name in admin.list("consumers")}
    chains = admin.list("evidence/issued")
    return found | {chain: len(admin.list(f"evidence/issued/{chain.rstrip('/')}")) for chain in chains}


def waiting(running: Sequence[Replica]) -> int:
    """Return how many waits go on at all replicas."""
    texts = [httpx.get(f"{each.health}/metrics", trust_env=False, timeout=30).text for each in running]
    return sum(int(float(found[1])) for text in texts if (found := WAITERS.search(text)))


async def in_thread(*arguments: str, services: Replicas) -> None:
    await asyncio.to_thread(services.run, *arguments)


async def all_wait(crowd: Crowd, services: Replicas) -> None:
    """Return once every consumer waits."""
    while await asyncio.to_thread(waiting, [each for each in services.running if each.ended is None]) < len(
        crowd.tokens
    ):
        await crowd.until(lambda: True)


async def restarted(crowd: Crowd, services: Replicas, replica: Replica, admin: Connection) -> Replica:
    """End a replica and start it again at its address: its consumers wait again, and nothing is written for them."""
    await all_wait(crowd, services)
    before = await asyncio.to_thread(versions, admin)
    replica.signal(signal.SIGTERM)
    assert (await asyncio.to_thread(replica.wait)).code == 0
    listen = replica.addresses[0].removeprefix("http://")
    again = await asyncio.to_thread(services.start, "--listen", listen, changes=replica.changes)
    await all_wait(crowd, services)
    assert await asyncio.to_thread(versions, admin) == before, "a restart made leases or writes"
    return again


@contextmanager
def at_fixed_ports(saved: SavedStates, *changes: dict[str, str]) -> Iterator[Replicas]:
    """Yield a replica for each of `changes` to the environment."""
    with replicas(saved.system) as services:
        for port, changed in zip(free_ports(len(changes)), changes, strict=True):
            services.start("--listen", f"127.0.0.1:{port}", changes=changed)
        yield services


def test_a_day_of_some_consumers(
    vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With 16 of them. `make chaos` has 500, on a cluster of three."""
    with grounded(vault_server, tmp_path_factory.mktemp("many")) as saved:
        saved.put("renewed")
        admin = saved.system.vault.admin
        with proxied(admin.settings.address, lambda _: None) as proxy:
            away = {"VAULT_ADDR": proxy.address, "BROKER_TIMEOUT": "1s"}
            with at_fixed_ports(saved, {}, away) as services:

                async def day() -> Crowd:
                    async with Crowd(
                        [each.addresses[0] for each in services.running], tokens, saved.system.home
                    ) as crowd:
                        await crowd.until(lambda: crowd.all_on(1))
                        await restarted(crowd, services, services.running[1], admin)
                        proxy.plan(Cue(Fault.SEALED, lasting=True))  # for the one that was restarted, where few wait
                        await in_thread("rotation", "promote", ACCOUNT, services=services)
                        await crowd.until(lambda: crowd.seen["503"] > 0 or crowd.all_on(2))
                        proxy.plan()
                        await crowd.until(lambda: crowd.all_on(2))
                        await crowd.call_partner()
                        return crowd

                tokens = crowd_of(admin, 16)
                crowd = asyncio.run(day())
        assert not crowd.faults, crowd.faults[:3]
        assert len(leases_in_evidence(saved.system)) >= 2 * len(tokens)


@pytest.mark.chaos
def test_a_day_of_500_consumers() -> None:
    """A rotation, a restart of each replica, a sealed leader, the death of a leader during a rotation."""
    with raft_cluster() as cluster:
        settings = VaultSettings(cluster.standbys[0].address, mount="broker", patience=30.0)
        leader = Connection(replace(settings, address=cluster.leader.address), FixedToken(cluster.token))
        apply(leader, plan(leader, Wish()))
        embedded = Embedded(Running(Home(cluster.nodes[0].config.parent), 0), settings)
        with (
            tempfile.TemporaryDirectory(prefix="broker-many-") as directory,
            Standin(Path(directory) / "partner", accounts={LOGIN: PASSWORD}) as partner,
            made_system(TestVault(settings, leader, embedded), partner) as system,
        ):
            saved = SavedStates(system)
            saved.put("renewed")
            tokens = crowd_of(leader, 500)
            nodes = [{"VAULT_ADDR": node.address} for node in cluster.standbys]
            with at_fixed_ports(saved, *nodes) as services:

                async def day() -> Crowd:
                    async with Crowd(services.addresses, tokens, system.home) as crowd:
                        await crowd.until(lambda: crowd.all_on(1))
                        for replica in list(services.running):
                            await restarted(crowd, services, replica, leader)
                        await in_thread("rotation", "promote", ACCOUNT, services=services)
                        await crowd.until(lambda: crowd.all_on(2))
                        await all_wait(crowd, services)
                        before = await asyncio.to_thread(versions, leader)
                        old = cluster.leader
                        assert old.ask("POST", "sys/seal", {}, token=cluster.token.reveal())[0] == 204
                        await asyncio.to_thread(lambda: cluster.leader)
                        old.kill()  # with this seal, a node that starts again is unsealed
                        old.start()  # here: a node ends with the thread that started it
                        await asyncio.to_thread(cluster.heal)
                        await all_wait(crowd, services)
                        assert await asyncio.to_thread(versions, leader) == before
                        system.ok("csr", "new", ACCOUNT)
                        system.ok("cert", "import", ACCOUNT, str(system.reply(ACCOUNT)))
                        dying = cluster.leader
                        await in_thread("rotation", "promote", ACCOUNT, services=services)
                        dying.kill()
                        await asyncio.to_thread(lambda: cluster.leader)
                        dying.start()
                        await asyncio.to_thread(cluster.heal)
                        await crowd.until(lambda: crowd.all_on(3))
                        await crowd.call_partner()
                        return crowd

                crowd = asyncio.run(day())
            leader.close()
            assert not crowd.faults, crowd.faults[:3]
            cluster.heal()
            system.changes = {"BROKER_TIMEOUT": "90s"}  # a busy machine makes the nodes elect again
            assert len(leases_in_evidence(system)) >= 3 * len(tokens)
