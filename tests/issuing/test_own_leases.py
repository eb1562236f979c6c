"""A consumer lists its own leases and ends them by their ids, and reaches no other's."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from broker.copies import replace
from broker.errors import DeniedError
from broker.issuing.own_leases import OwnLeases
from broker.issuing.usable import Applications
from broker.model.holdings import ConsumerRecord, Holding, NamedLease
from broker.model.lease import Caller, Consumer
from broker.model.names import account_name
from broker.model.secret import Secret
from tests.issuing.test_batch_issuer import HOUR, READER, World, wanted
from tests.support.accounts import MZP
from tests.support.on_loop import run

OTHER = Caller(Secret("other"))
STRANGER = Caller(Secret("stranger"))
UNKNOWN = "0a" * 16


def named(lease: str, account: str = MZP, application: str = "fleet") -> NamedLease:
    return NamedLease(lease, account_name(account), application)


class Permitted:
    """Judges callers as `World` does; of the rest of `Applications` nothing is used."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def consumer(self, caller: Caller) -> Consumer:
        return await self._world.issuer.judged(caller, MZP, "fleet")


async def listed(world: World, caller: Caller) -> list[Holding]:
    applications = cast("Applications", Permitted(world))
    return await OwnLeases(world.issuer, applications, world.records.get, world.clock).of(caller)


def test_a_caller_lists_its_own_leases() -> None:
    async def test() -> None:
        world = World()
        assert await listed(world, READER) == []
        mine = [await world.issuer.grant(READER, wanted()) for _ in range(2)]
        theirs = await world.issuer.grant(OTHER, wanted())
        (one,) = await listed(world, READER)
        assert (one.lease, one.generation, one.shared) == (mine[1].lease.id, 1, True), "the newest"
        assert [h.lease for h in await listed(world, OTHER)] == [theirs.lease.id]
        with pytest.raises(DeniedError):
            await listed(world, STRANGER)
        world.now = max(granted.lease.expires for granted in (*mine, theirs))
        assert await listed(world, READER) == []

    run(test)


def test_one_reading_serves_all_who_ask() -> None:
    """A record may be large: its consumer must not have it read many times concurrently."""

    async def test() -> None:
        world, reads = World(), []
        granted = await world.issuer.grant(READER, wanted())

        def read(entity: str) -> ConsumerRecord:
            reads.append(entity)
            return world.records[entity]

        leases = OwnLeases(world.issuer, cast("Applications", Permitted(world)), read, world.clock)
        found = await asyncio.gather(*(leases.of(READER) for _ in range(20)))
        assert {one.lease for (one,) in found} == {granted.lease.id}
        assert len(reads) == 1
        await world.issuer.revoke(READER, granted.lease_text)
        assert await leases.of(READER) == [], "nothing is kept"

    run(test)


def test_a_lease_is_ended_by_its_id() -> None:
    """Repeated, as after a lost answer, it changes nothing."""

    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        for _ in range(2):
            await world.issuer.revoke_named(READER, named(granted.lease.id))
            (revocation,) = world.records["entity-reader"].revocations
            assert (revocation.epoch, world.holders()) == (1, frozenset())
        with pytest.raises(DeniedError):
            await world.issuer.renew(READER, granted.lease_text, HOUR)
        assert world.evidence[-1].facts["lease"] == granted.lease.id
        assert [entry.what for entry in world.evidence][:2] == ["bundle-issued", "bundle-returned"]

    run(test)


def test_one_id_is_ended_in_each_generation() -> None:
    """Requests of GET share a lease, which goes on in a newer generation; another consumer's has another id."""

    async def test() -> None:
        world = World()
        shared = replace(wanted(), idempotency_key="GET")
        first = await world.issuer.grant(READER, shared)
        await world.issuer.grant(OTHER, shared)
        world.promote()
        world.uptime += 10
        second = await world.issuer.grant(READER, shared)
        assert first.lease.id == second.lease.id
        await world.issuer.revoke_named(READER, named(first.lease.id))
        assert world.holders() == {"other"}
        assert not world.holders(second.lease.generation)
        again = await world.issuer.grant(READER, shared)
        await world.issuer.renew(READER, again.lease_text, HOUR)

    run(test)


def test_other_leases_of_a_line_stay() -> None:
    """The record knows the newest of two; the older one has ended by its id nevertheless, and alone."""

    async def test() -> None:
        world = World()
        older, newer = [await world.issuer.grant(READER, wanted()) for _ in range(2)]
        await world.issuer.revoke_named(READER, named(older.lease.id))
        with pytest.raises(DeniedError):
            await world.issuer.renew(READER, older.lease_text, HOUR)
        await world.issuer.renew(READER, newer.lease_text, HOUR)
        assert world.holders() == {"reader"}

    run(test)


@pytest.mark.parametrize("holds", [True, False])
def test_ids_of_others_end_nothing(holds: bool) -> None:
    """Unknown, another's, of another account or application, or not whole: one error, and nothing is written."""

    async def test() -> None:
        world = World()
        theirs = await world.issuer.grant(OTHER, wanted())
        mine = (await world.issuer.grant(READER, wanted())).lease.id if holds else UNKNOWN
        before, noted = dict(world.records), len(world.evidence)
        for caller, asked in (
            (READER, named(theirs.lease.id)),
            (READER, named(UNKNOWN)),
            (READER, named(mine, account="none")),
            (READER, named(mine, application="other")),
            (READER, named(mine[:8])),
            (READER, named("")),
            (OTHER, named(mine)),
            (STRANGER, named(theirs.lease.id)),
        ):
            with pytest.raises(DeniedError):
                await world.issuer.revoke_named(caller, asked)
        assert (world.records, len(world.evidence)) == (before, noted)
        await world.issuer.renew(OTHER, theirs.lease_text, HOUR)

    run(test)


def test_a_shared_line_ends_no_lease_of_another() -> None:
    """Any id may be one of a shared line; it is revoked for this consumer alone, and in this application alone."""

    async def test() -> None:
        world = World()
        theirs = await world.issuer.grant(OTHER, wanted())
        mine = [await world.issuer.grant(READER, wanted()) for _ in range(2)]
        await world.issuer.revoke_named(READER, named(theirs.lease.id))
        for caller, granted in ((OTHER, theirs), *((READER, one) for one in mine)):
            await world.issuer.renew(caller, granted.lease_text, HOUR)
        assert world.holders() == {"reader", "other"}

    run(test)
