"""Consumers of all kinds, at two replicas: a rotation, a restart, a sealed Vault and a new leader.

Most speak the protocol; among them are agents, sessions and a command under `broker exec`. No call of theirs that the
partner would accept fails, none stays on the old generation, a restart makes no lease, runs no hook and writes no file.
Programs give their leases back at their end, and leave no file.
"""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from partner_standin import Standin

from broker.copies import replace
from broker.embedded.home import Home
from broker.embedded.server import Running
from broker.embedded.up import Embedded
from broker.model.names import AccountName
from broker.vault.connection import Connection
from broker.vault.layout import right
from broker.vault.logins import FixedToken
from broker.vault.policies import consumer_policy
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.chaos.cluster import raft_cluster
from tests.support.ports import free_ports
from tests.support.program_consumers import APPLICATIONS, Beside, Programs
from tests.support.protocol_consumers import Crowd
from tests.support.proxy import Cue, Fault, proxied
from tests.support.replicas import Replica, Replicas, grounded, replicas
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.service_books import leases_in_evidence
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import TestVault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WAITERS = re.compile(r"^credential_broker_waiters (\d+)", re.MULTILINE)


def crowd_of(admin: Connection, count: int) -> list[str]:
    """Return tokens of so many consumers, each an entity of its own, made as an administrator would by hand."""
    policy = f"crowd-{admin.settings.mount}"
    hcl = consumer_policy([right("stellantis", "stand-in", ACCOUNT, name) for name in APPLICATIONS])
    admin.call("POST", f"sys/policies/acl/{policy}", {"policy": hcl})
    role = {"allowed_policies": [policy], "allowed_entity_aliases": [f"{policy}-*"], "token_no_default_policy": True}
    admin.call("POST", f"auth/token/roles/{policy}", {**role, "orphan": True})
    made = []
    for number in range(count):
        wanted = {"entity_alias": f"{policy}-{number}", "policies": [policy], "ttl": "4h"}
        made.append(admin.call("POST", f"auth/token/create/{policy}", wanted)["auth"]["client_token"])
    return made


def register(system: System) -> None:
    """Add the further applications of agents."""
    for name in APPLICATIONS[1:]:
        client_id = system.partner.registry.client_id(LOGIN, name)
        system.ok("app", "add", f"{ACCOUNT}/{name}", "--client-id", client_id)


def holders(system: System, generation: int) -> int:
    """Return how many applications of consumers hold a generation."""
    with system.broker() as broker:
        return len(broker.stragglers(AccountName(ACCOUNT), generation))


def versions(admin: Connection, programs: Programs) -> dict[str, object]:
    """Return what was written: each record of a consumer, how many entries of evidence, files, calls of hooks."""
    found: dict[str, object] = {name: admin.read(f"consumers/{name}").version for name in admin.list("consumers")}
    chains = admin.list("evidence/issued")
    found |= {chain: len(admin.list(f"evidence/issued/{chain.rstrip('/')}")) for chain in chains}
    return found | programs.files()


def waiting(running: Sequence[Replica]) -> int:
    """Return how many waits go on at all replicas."""
    texts = [httpx.get(f"{each.health}/metrics", trust_env=False, timeout=30).text for each in running]
    return sum(int(float(found[1])) for text in texts if (found := WAITERS.search(text)))


async def in_thread(*arguments: str, services: Replicas) -> None:
    await asyncio.to_thread(services.run, *arguments)


async def all_wait(crowd: Crowd, services: Replicas) -> None:
    """Return once every consumer waits."""
    while await asyncio.to_thread(waiting, [each for each in services.running if each.ended is None]) < crowd.waits:
        await crowd.until(lambda: True)


@asynccontextmanager
async def people(services: Replicas, tokens: Sequence[str], beside: Beside) -> AsyncIterator[tuple[Crowd, Programs]]:
    """Yield the crowd and the programs, all on generation 1. The programs end first, and leave no file."""
    system = services.system
    given, own = tokens[beside.count :], tokens[: beside.count]
    with tempfile.TemporaryDirectory(prefix="broker-programs-", dir="/dev/shm") as folder:
        async with Crowd(services.addresses, given, system.home, beside.waits) as crowd:
            async with Programs(beside, services.addresses, own, Path(folder), system.environment) as programs:
                await crowd.until(lambda: crowd.all_on(1) and programs.is_ready() and programs.all_on(1))
                yield crowd, programs
                last = max(bundle["generation"] for bundle in crowd.bundles.values())
                assert await asyncio.to_thread(holders, system, last) == crowd.waits
                before = programs.called
                await crowd.until(lambda: programs.called > before + beside.waits and programs.all_on(last))
                await crowd.call_partner()
            assert not programs.faults, programs.faults[:3]


async def restarted(
    crowd: Crowd, programs: Programs, services: Replicas, replica: Replica, admin: Connection
) -> Replica:
    """End a replica and start it again at its address: its consumers wait again, and nothing is written for them."""
    await all_wait(crowd, services)
    before = await asyncio.to_thread(versions, admin, programs)
    replica.signal(signal.SIGTERM)
    assert (await asyncio.to_thread(replica.wait)).code == 0
    listen = replica.addresses[0].removeprefix("http://")
    again = await asyncio.to_thread(services.start, "--listen", listen, changes=replica.changes)
    await all_wait(crowd, services)
    assert await asyncio.to_thread(versions, admin, programs) == before, "a restart made leases or writes"
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
    """With 16 of them, an agent and a session. `make chaos` has 500, on a cluster of three."""
    with grounded(vault_server, tmp_path_factory.mktemp("many")) as saved:
        saved.put("renewed")
        register(saved.system)
        admin = saved.system.vault.admin
        with proxied(admin.settings.address, lambda _: None) as proxy:
            away = {"VAULT_ADDR": proxy.address, "BROKER_TIMEOUT": "1s"}
            with at_fixed_ports(saved, {}, away) as services:

                async def day() -> Crowd:
                    async with people(services, tokens, beside) as (crowd, programs):
                        await restarted(crowd, programs, services, services.running[1], admin)
                        proxy.plan(Cue(Fault.SEALED, lasting=True))  # for the one that was restarted, where few wait
                        await in_thread("rotation", "promote", ACCOUNT, services=services)
                        await crowd.until(lambda: crowd.seen["503"] > 0 or crowd.all_on(2))
                        proxy.plan()
                        await crowd.until(lambda: crowd.all_on(2) and programs.all_on(2))
                        return crowd

                beside = Beside(agents=1, sessions=("requests",))
                tokens = crowd_of(admin, 16 + beside.count)
                crowd = asyncio.run(day())
        assert not crowd.faults, crowd.faults[:3]
        assert max(holders(saved.system, number) for number in (1, 2)) == 16, "a lease was not given back"
        assert len(leases_in_evidence(saved.system)) >= 2 * len(tokens)


@pytest.mark.chaos
def test_a_day_of_500_consumers() -> None:
    """A rotation, a restart of each replica, a sealed leader, the death of a leader during a rotation."""
    beside = Beside(agents=6, sessions=("requests", "httpx", "aiohttp"), commands=1)
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
            register(system)
            tokens = crowd_of(leader, 500)
            nodes = [{"VAULT_ADDR": node.address} for node in cluster.standbys]
            with at_fixed_ports(saved, *nodes) as services:

                async def day() -> Crowd:
                    async with people(services, tokens, beside) as (crowd, programs):
                        for replica in list(services.running):
                            await restarted(crowd, programs, services, replica, leader)
                        await in_thread("rotation", "promote", ACCOUNT, services=services)
                        await crowd.until(lambda: crowd.all_on(2) and programs.all_on(2))
                        await all_wait(crowd, services)
                        before = await asyncio.to_thread(versions, leader, programs)
                        old = cluster.leader
                        assert old.ask("POST", "sys/seal", {}, token=cluster.token.reveal())[0] == 204
                        await asyncio.to_thread(lambda: cluster.leader)
                        old.kill()  # with this seal, a node that starts again is unsealed
                        old.start()  # here: a node ends with the thread that started it
                        await asyncio.to_thread(cluster.heal)
                        await all_wait(crowd, services)
                        assert await asyncio.to_thread(versions, leader, programs) == before
                        system.ok("csr", "new", ACCOUNT)
                        system.ok("cert", "import", ACCOUNT, str(system.reply(ACCOUNT)))
                        dying = cluster.leader
                        await in_thread("rotation", "promote", ACCOUNT, services=services)
                        dying.kill()
                        await asyncio.to_thread(lambda: cluster.leader)
                        dying.start()
                        await asyncio.to_thread(cluster.heal)
                        await crowd.until(lambda: crowd.all_on(3) and programs.all_on(3))
                        return crowd

                crowd = asyncio.run(day())
            leader.close()
            assert not crowd.faults, crowd.faults[:3]
            cluster.heal()
            system.changes = {"BROKER_TIMEOUT": "90s"}  # a busy machine makes the nodes elect again
            left = max(holders(system, number) for number in (1, 2, 3))
            assert left == len(tokens) - beside.count, "a lease was not given back"
            assert len(leases_in_evidence(system)) >= 3 * len(tokens)
