"""Waits: each reason ends one, what is lost or stale is noticed later, and many cost no more than one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from broker.copies import replace
from broker.errors import DeniedError, RateError, UnknownNameError, VaultUnavailableError
from broker.issuing import waits as module
from broker.issuing.waits import Asked, Documents, Room, Wait, Waits
from broker.model.account import Account
from broker.model.changes import moving
from broker.model.changes.registering import application_removed, removed, resumed, suspended
from broker.model.holdings import ConsumerRecord, Holding
from broker.model.lease import BundleKind, Caller, Consumer, Lease
from broker.model.names import AccountName
from broker.model.recent_changes import ACCOUNTS, CONSUMERS, RecentChanges
from broker.model.secret import Secret
from broker.model.stage import Move
from broker.model.waiting import Ended, Event
from broker.vault import layout
from tests.support.accounts import MZP, NOW, STAMP, with_answer, with_current
from tests.support.on_loop import run

READER, OTHER = Caller(Secret("reader")), Caller(Secret("other"))
PATH = f"{ACCOUNTS}{MZP}"
LEASE = Lease("l-1", "entity-reader", MZP, "fleet", BundleKind.DIRECT, 1, NOW, NOW + timedelta(hours=1))


@dataclass
class World:
    """Vault's documents in memory, and rights."""

    account: Account | None = field(default_factory=with_current)
    recent: RecentChanges = field(default_factory=RecentChanges)
    records: dict[str, ConsumerRecord] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    stale: list[Account] = field(default_factory=list)  # shown first, as a standby node does
    reads: int = 0
    polls: int = 0
    judgements: int = 0
    forgotten: int = 0

    def waits(self, room: Room = Room()) -> Waits:  # noqa: B008  # it is frozen
        return Waits(self, Documents(self._changes, self._read, self.records.get), room)

    async def judged(self, caller: Caller, account: AccountName, application: str) -> Consumer:
        self.judgements += 1
        if "fault" in self.away and self.judgements > 1:
            raise ZeroDivisionError
        name = caller.credential.reveal()
        if "judge" in self.away:
            raise VaultUnavailableError("away")
        if name in self.denied:
            raise DeniedError("no right")
        return Consumer(f"entity-{name}", name)

    async def held(self, caller: Caller, lease_text: Secret[str]) -> tuple[Lease, Consumer]:
        return replace(LEASE, account=AccountName(lease_text.reveal())), await self.judged(caller, MZP, "fleet")

    def forget(self, account: AccountName) -> None:
        self.forgotten += 1

    def _changes(self) -> RecentChanges:
        self.polls += 1
        if "fault" in self.away:
            raise ZeroDivisionError
        if "changes" in self.away:
            raise VaultUnavailableError("away")
        return self.recent

    def _read(self, name: AccountName) -> Account:
        self.reads += 1
        if "account" in self.away:
            raise VaultUnavailableError("away")
        if self.stale:
            return self.stale.pop()
        if self.account is None:
            raise UnknownNameError("none")
        return self.account

    def change(self, account: Account, *, announced: bool = True) -> None:
        self.account = account
        if announced:
            self.recent = self.recent.done(PATH, 1)

    def promote(self, *, announced: bool = True) -> None:
        assert self.account
        moved = moving.moved(with_answer(self.account), self.account.next_generation, Move.PROMOTE, STAMP)
        self.change(moved, announced=announced)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL", (0.01, 0.01))
    monkeypatch.setattr(module, "_AWAY", (0.01, 0.01))
    monkeypatch.setattr(module, "_AGAIN", (0.02, 0.04))
    monkeypatch.setattr(module, "_LOOK", (3600.0, 3600.0))
    monkeypatch.setattr(module, "_pace", lambda _: 0.0)


def asked(generation: int = 1, lease: str = "") -> Asked:
    return Asked(MZP, "fleet", generation, Secret(lease) if lease else None)


async def settled(world: World, waits: Waits) -> None:
    """Return once the poller goes on from a change that it has seen, and nothing is being looked at."""
    before = world.polls
    while world.polls < before + 2 or waits._looking:
        await asyncio.sleep(0.001)


def suspend(account: Account) -> Account:
    return suspended(account, "stolen", STAMP)


CHANGES: dict[str, tuple[Callable[[Account], Account], Ended]] = {
    "promotion": (
        lambda a: moving.moved(with_answer(a), a.next_generation, Move.PROMOTE, STAMP),
        Ended(Event.GENERATION, 2),
    ),
    "suspension": (suspend, Ended(Event.SUSPENDED)),
    "removal": (lambda a: removed(a, "over", STAMP), Ended(Event.REVOKED)),
    "application": (lambda a: application_removed(a, "fleet", STAMP), Ended(Event.REVOKED)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_announced_change_ends_a_wait(what: str) -> None:
    async def test() -> None:
        world = World()
        waits, (change, end) = world.waits(), CHANGES[what]
        wait = await waits.begin(READER, asked())
        await settled(world, waits)
        assert not wait.over.done()
        assert world.account
        world.change(change(world.account))
        assert await wait.over == end
        assert not waits._of
        assert not waits._waiting

    run(test)


@pytest.mark.parametrize("what", CHANGES)
def test_an_earlier_change_ends_a_wait(what: str) -> None:
    async def test() -> None:
        world = World()
        change, end = CHANGES[what]
        assert world.account
        world.change(change(world.account), announced=False)
        assert await (await world.waits().begin(READER, asked())).over == end

    run(test)


def test_a_roll_back_is_another_generation() -> None:
    async def test() -> None:
        world = World()
        assert await (await world.waits().begin(READER, asked(2))).over == Ended(Event.GENERATION, 1)

    run(test)


def test_other_changes_end_nothing() -> None:
    async def test() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked())
        await settled(world, waits)
        world.change(resumed(suspend(with_current()), STAMP))
        world.recent = world.recent.done(f"{ACCOUNTS}another", 1).done(f"{CONSUMERS}entity-x", 1)
        await settled(world, waits)
        assert not wait.over.done()

    run(test)


def test_an_account_that_is_gone_ends_a_wait() -> None:
    async def test() -> None:
        assert await (await World(account=None).waits().begin(READER, asked())).over == Ended(Event.REVOKED)

    run(test)


def revoked(lease: Lease) -> ConsumerRecord:
    holding = Holding(MZP, "fleet", "direct", 1, lease.id, NOW, lease.expires)
    return ConsumerRecord("entity-reader", "reader", (holding,)).ended(holding, now=NOW)


@pytest.mark.parametrize("lease", ["", MZP])
def test_a_revoked_lease_ends_its_own_wait(lease: str) -> None:
    async def test() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked(lease=lease))
        await settled(world, waits)
        world.records["entity-reader"] = revoked(LEASE)
        world.recent = world.recent.done(f"{CONSUMERS}entity-reader", 1)
        if lease:
            assert await wait.over == Ended(Event.REVOKED)
        else:
            await settled(world, waits)
            assert not wait.over.done()

    run(test)


def test_a_lease_of_another_account_is_refused() -> None:
    async def test() -> None:
        with pytest.raises(DeniedError):
            await World().waits().begin(READER, asked(lease="another"))

    run(test)


def test_strangers_do_not_wait() -> None:
    async def test() -> None:
        world = World(denied={"reader"})
        waits = world.waits()
        with pytest.raises(DeniedError):
            await waits.begin(READER, asked())
        assert not waits._waiting
        assert not world.reads

    run(test)


def test_a_lost_announcement_only_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long judging takes."""

    async def test() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked())
        await settled(world, waits)
        world.promote(announced=False)
        await settled(world, waits)
        assert not wait.over.done()

    run(test)
    monkeypatch.setattr(module, "_LOOK", (0.01, 0.01))

    async def slow() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked())
        monkeypatch.setattr(world, "judged", lambda *_: asyncio.Event().wait())
        await settled(world, waits)
        world.promote(announced=False)
        assert await wait.over == Ended(Event.GENERATION, 2)

    run(slow)


PACE = module._pace


def test_all_rights_are_judged_in_time() -> None:
    """The pauses between 400 of them, or 8,000, take ten seconds."""
    assert [PACE(rights) * rights for rights in (400, 8_000)] == pytest.approx([10, 10])


def test_a_fault_ends_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", (0.01, 0.01))

    async def test() -> None:
        world = World(away={"fault"})
        waits = world.waits()
        wait, right = await waits.begin(READER, asked()), world.judgements
        while world.polls < 3 or world.judgements < right + 3:
            await asyncio.sleep(0.001)
        world.away = set()
        world.promote()
        assert await wait.over == Ended(Event.GENERATION, 2)

    run(test)


def test_one_consumer_leaves_room() -> None:
    assert Room.among(10_000) == Room(8_000, 1_000)
    assert Room.among(1_000) == Room(800, 200)
    assert Room.among(1) == Room(1, 1)


def test_changes_that_cannot_be_read_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a policy of an earlier release."""
    monkeypatch.setattr(module, "_LOOK", (0.01, 0.01))

    async def test() -> None:
        world = World(away={"changes"})
        wait = await world.waits().begin(READER, asked())
        world.promote()
        assert await wait.over == Ended(Event.GENERATION, 2)

    run(test)


def test_a_stale_standby_is_asked_again() -> None:
    async def test() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked())
        await settled(world, waits)
        assert world.account
        world.stale = [world.account]
        world.promote()
        assert await wait.over == Ended(Event.GENERATION, 2)

    run(test)


def test_too_many_changes_are_not_missed() -> None:
    async def test() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked())
        await settled(world, waits)
        world.promote(announced=False)
        for number in range(100):
            world.recent = world.recent.done(f"{ACCOUNTS}other-{number}", 1)
        assert await wait.over == Ended(Event.GENERATION, 2)

    run(test)


@pytest.mark.parametrize("away", [{"changes"}, {"account"}, {"changes", "account", "judge"}])
def test_a_wait_goes_on_while_vault_is_away(away: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", (0.01, 0.01))

    async def test() -> None:
        world = World()
        waits = world.waits()
        wait = await waits.begin(READER, asked())
        await settled(world, waits)
        world.away = away
        world.promote()
        judged, polls = world.judgements, world.polls
        if away != {"changes"}:
            while world.judgements < judged + 2 or world.polls < polls + 2:
                await asyncio.sleep(0.001)
            assert not wait.over.done()
        world.away = set()
        assert await wait.over == Ended(Event.GENERATION, 2)

    run(test)


def test_a_right_that_ends_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", (0.01, 0.01))

    async def test() -> None:
        world = World()
        waits = world.waits()
        wait, other = await waits.begin(READER, asked()), await waits.begin(OTHER, asked())
        world.denied = {"reader"}
        assert await wait.over == Ended(Event.REVOKED)
        assert not other.over.done()

    run(test)


def test_a_drain_ends_all_waits() -> None:
    async def test() -> None:
        waits = World().waits()
        before = [await waits.begin(READER, asked()) for _ in range(3)]
        waits.drain()
        after = await waits.begin(READER, asked())
        assert {await wait.over for wait in (*before, after)} == {Ended(Event.DRAIN)}
        assert not waits._count

    run(test)


def test_a_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST", (0.01, 0.02))

    async def test() -> None:
        assert await (await World().waits().begin(READER, asked())).over == Ended(Event.TIMEOUT)

    run(test)


def test_room_is_bounded_and_given_back() -> None:
    async def test() -> None:
        waits = World().waits(Room(all=3, each=2))
        first: list[Wait] = [await waits.begin(READER, asked()) for _ in range(2)]
        with pytest.raises(RateError):
            await waits.begin(READER, asked())
        await waits.begin(OTHER, asked())
        with pytest.raises(VaultUnavailableError):
            await waits.begin(Caller(Secret("third")), asked())
        waits.close(first[0])
        waits.close(first[0])
        await waits.begin(READER, asked())

    run(test)


def test_many_waits_cost_one_read() -> None:
    async def test() -> None:
        world = World()
        waits = world.waits()
        many = [await waits.begin(READER, asked()) for _ in range(500)]
        await settled(world, waits)
        world.reads = 0
        world.promote()
        assert {await wait.over for wait in many} == {Ended(Event.GENERATION, 2)}
        assert world.reads <= 2
        assert world.forgotten

    run(test)


def test_nothing_is_read_while_nobody_waits() -> None:
    async def test() -> None:
        world = World()
        waits = world.waits()
        waits.close(await waits.begin(READER, asked()))
        while not waits._loops["poll"].done():
            await asyncio.sleep(0.001)
        polls = world.polls
        wait = await waits.begin(READER, asked())  # and the next one starts it again
        world.promote()
        assert await wait.over == Ended(Event.GENERATION, 2)
        assert world.polls > polls

    run(test)


def test_paths_are_those_of_vault() -> None:
    assert layout.account("mzp-1") == f"{ACCOUNTS}mzp-1"
    assert layout.consumer("entity-1") == f"{CONSUMERS}entity-1"
