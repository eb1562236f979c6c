"""Bundles for many callers: batches, bounded age, and the same answers as the issuer that reads everything."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from broker.copies import replace
from broker.errors import (
    BrokerError,
    BusyError,
    ConflictError,
    DeniedError,
    RateError,
    RefusedError,
    VaultUnavailableError,
)
from broker.evidence.journal import Journal
from broker.issuing.announced import Announced
from broker.issuing.batch_issuer import OLDEST, BatchIssuer, Limits, Ports
from broker.issuing.batches import Batches, Recorder
from broker.issuing.grant import SetSecrets
from broker.issuing.leases import LeaseSigner
from broker.issuing.loop_journal import LoopJournal
from broker.model.account import Account
from broker.model.authentication import PASSWORD, Authentication
from broker.model.bundle import Bundle, Wanted
from broker.model.chain import Entry
from broker.model.changes import moving
from broker.model.generation import Parts
from broker.model.holdings import ConsumerRecord, StoredRecord, Which, held
from broker.model.lease import BundleKind, Caller, Consumer
from broker.model.names import AccountName
from broker.model.recent_changes import ACCOUNTS, CONSUMERS, RecentChanges
from broker.model.secret import Secret
from broker.model.stage import Move
from broker.telemetry import log
from tests.support.accounts import BY, MZP, NOW, PLANTED, STAMP, with_answer, with_current
from tests.support.on_loop import run

SIGNER = LeaseSigner("a", {"a": Secret(b"a" * 32)})
HOUR = timedelta(hours=1)
READER = Caller(Secret("reader"))


@dataclass
class World:
    """The ports of a batch issuer, with Vault's documents in memory."""

    account: Account = field(default_factory=with_current)
    now: datetime = NOW
    uptime: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    records: dict[str, ConsumerRecord] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    recent: RecentChanges = field(default_factory=RecentChanges)
    evidence: list[Entry] = field(default_factory=list)
    away: str = ""
    on_record: Callable[[], None] = lambda: None
    on_store: Callable[[], None] = lambda: None
    gate: threading.Event = field(default_factory=threading.Event)
    judging: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.judging.set()
        announced = Announced(lambda: self.uptime)
        journal = LoopJournal("issued/test", self._store, self.clock, BY)
        returns = Journal("issued/returns", self._store_return, self.clock, BY)
        self.recorder = Recorder(self, journal, self.clock, announced, lambda: self.uptime)
        ports: Ports[Bundle] = Ports(
            signer=lambda: SIGNER,
            contents=self._contents,
            accounts=self._read,
            authentication=lambda _: Authentication(),
            judge=self._judge,
            group=lambda _: "",
            read_secrets=self._secrets,
            end=self.recorder.end,
            end_named=self.recorder.end_named,
            note_return=lambda _, lease: returns.append("bundle-returned", lease=lease.id),
            require_true_clock=lambda: None,
            changes=self._changes,
            announced=announced,
        )
        self.issuer: BatchIssuer[Bundle] = BatchIssuer(
            ports, Batches(self.recorder.write), self.clock, uptime=lambda: self.uptime
        )

    def clock(self) -> datetime:
        return self.now

    def change_known(
        self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord], known: StoredRecord | None
    ) -> StoredRecord:
        self._note("record")
        self.on_record()
        before = self.records.get(entity, ConsumerRecord(entity, name))
        after = change(before)
        if after != before:
            self.records[entity] = after
            self.versions[entity] = self.versions.get(entity, 0) + 1
        return StoredRecord(after, self.versions.get(entity, 0))

    def holders(self, generation: int = 1) -> frozenset[str]:
        found = held(self.records.values(), self.now, Which(account=MZP, generation=generation))
        return frozenset(record.name for record, _ in found)

    def promote(self, *, announced: bool = True) -> None:
        self.account = moving.moved(with_answer(self.account), self.account.next_generation, Move.PROMOTE, STAMP)
        if announced:
            self.recent = self.recent.done(f"{ACCOUNTS}{MZP}", 1)

    def _note(self, what: str) -> None:
        self.calls[what] = self.calls.get(what, 0) + 1
        if self.away == what:
            raise VaultUnavailableError("away")

    def _changes(self) -> RecentChanges:
        self._note("changes")
        return self.recent

    def _read(self, name: AccountName) -> Account:
        self._note("account")
        return self.account

    def _judge(self, caller: Caller, name: AccountName, application: str, kind: BundleKind) -> Consumer:
        self._note("judge")
        self.judging.wait(30)
        if caller.credential.reveal().startswith("stranger"):
            unknown = DeniedError("unknown")
            unknown.who = {"consumer": "stranger"}
            raise unknown
        return Consumer(f"entity-{caller.credential.reveal()}", caller.credential.reveal())

    def _secrets(self, name: AccountName, parts: Parts) -> SetSecrets:
        self._note("secrets")
        return SetSecrets(Secret(b"key"), {PASSWORD: Secret(PLANTED)})

    def _contents(self, bundle: Bundle) -> Bundle:
        self._note("contents")
        return bundle

    def _store_return(self, entry: Entry) -> None:
        self._note("evidence")
        self.evidence.append(entry)

    async def _store(self, entry: Entry) -> None:
        self._note("evidence")
        self.on_store()
        await asyncio.to_thread(self.gate.wait, 30)
        self.evidence.append(entry)


def limited(world: World, rate: float) -> BatchIssuer[Bundle]:
    """Return the world's issuer with a limit for each consumer."""
    made = world.issuer
    return BatchIssuer(made._ports, made._batches, world.clock, Limits(rate=rate), lambda: world.uptime)


def wanted(**more: object) -> Wanted:
    return replace(Wanted(MZP, "fleet", HOUR), **more)  # type: ignore[arg-type]


def test_a_consumer_that_asks_too_often_waits() -> None:
    async def test() -> None:
        world = World()
        issuer = limited(world, 1)
        granted = [await issuer.grant(READER, wanted()) for _ in range(5)]
        recorded = world.calls["evidence"]
        for _ in range(3):
            with pytest.raises(RateError):
                await issuer.grant(READER, wanted())
        with pytest.raises(RateError):
            await issuer.renew(READER, granted[0].lease_text, HOUR)
        assert world.calls["evidence"] == recorded
        await issuer.grant(Caller(Secret("other")), wanted())
        with pytest.raises(DeniedError):
            await issuer.grant(Caller(Secret("stranger")), wanted())
        world.uptime += 1
        await issuer.grant(READER, wanted())

    run(test)


def test_a_bundle_is_recorded_before_it_leaves() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        assert granted.contents.secrets[PASSWORD].reveal() == PLANTED
        assert world.holders() == {"reader"}
        assert [entry.what for entry in world.evidence] == ["bundle-issued"]
        assert world.evidence[0].facts["lease"] == granted.lease.id

    run(test)


@pytest.mark.parametrize("what", ["record", "evidence", "account", "secrets", "judge"])
def test_nothing_leaves_if_vault_is_away(what: str) -> None:
    async def test() -> None:
        world = World(away=what)
        with pytest.raises(VaultUnavailableError):
            await world.issuer.grant(READER, wanted())
        world.away = ""
        assert (await world.issuer.grant(READER, wanted())).lease.generation == 1

    run(test)


def test_what_waits_shares_one_batch() -> None:
    async def test() -> None:
        world = World()
        await world.issuer.grant(READER, wanted())
        world.gate.clear()
        asking = [asyncio.create_task(world.issuer.grant(READER, wanted())) for _ in range(50)]
        while world.calls["evidence"] < 2:
            await asyncio.sleep(0.001)
        world.gate.set()
        granted = await asyncio.gather(*asking)
        assert len({g.lease.id for g in granted}) == 50
        assert len(world.evidence) <= 4
        named = [line for entry in world.evidence for line in str(entry.facts.get("records", "")).splitlines()]
        alone = {str(entry.facts["lease"]) for entry in world.evidence if "lease" in entry.facts}
        assert {g.lease.id for g in granted} <= alone | {json.loads(line)["lease"] for line in named}

    run(test)


def test_a_batch_takes_what_has_arrived() -> None:
    async def test() -> None:
        world = World()
        await world.issuer.grant(READER, wanted())
        asking = [asyncio.create_task(world.issuer.grant(READER, wanted()))]
        await asyncio.sleep(0)
        asking.append(asyncio.create_task(world.issuer.grant(READER, wanted())))
        await asyncio.gather(*asking)
        assert [entry.what for entry in world.evidence] == ["bundle-issued", "bundles-issued"]

    run(test)


def test_contents_are_made_once_for_an_account() -> None:
    async def test() -> None:
        world = World()
        for reader in ("a", "b", "b"):
            await world.issuer.grant(Caller(Secret(reader)), wanted())
        assert world.calls["contents"] == 1
        world.promote()
        world.uptime += OLDEST
        assert (await world.issuer.grant(READER, wanted())).contents.generation == 2

    run(test)


def test_secrets_of_an_unchanged_account_are_kept() -> None:
    async def test() -> None:
        world = World()
        for _ in range(3):
            await world.issuer.grant(READER, wanted())
            world.uptime += OLDEST
        assert (world.calls["account"], world.calls["secrets"], world.calls["contents"]) == (3, 1, 1)
        world.promote()
        assert (await world.issuer.grant(READER, wanted())).contents.generation == 2
        assert world.calls["secrets"] == 2

    run(test)


async def settled(world: World) -> None:
    """Grant until what is in memory was read after the first look at the change document."""
    for _ in range(5):
        await world.issuer.grant(READER, wanted())
        world.uptime += 1
    world.now += timedelta(minutes=1)
    await world.issuer.grant(READER, wanted())  # the record is written
    world.uptime += 1
    world.calls.clear()


def test_what_nobody_announced_is_not_read_again() -> None:
    async def test() -> None:
        world = World()
        await settled(world)
        for _ in range(50):
            await world.issuer.grant(READER, wanted())
            world.uptime += 1
        assert (world.calls.get("account", 0), world.calls.get("record", 0), world.calls["changes"]) == (0, 0, 50)

    run(test)


@pytest.mark.parametrize("announced", ["to come", "done", "not readable"])
def test_an_announced_account_is_read_each_second(announced: str) -> None:
    async def test() -> None:
        world = World()
        await settled(world)
        path = f"{ACCOUNTS}{MZP}"
        if announced == "not readable":
            world.away = "changes"
        else:
            world.recent = world.recent.done(path, 1) if announced == "done" else world.recent.announced(path, 1)
        for _ in range(3):
            await world.issuer.grant(READER, wanted())
            world.uptime += 1
        assert world.calls["account"] == 3
        world.promote(announced=False)
        assert (await world.issuer.grant(READER, wanted())).contents.generation == 2

    run(test)


def test_slow_record_rereads_announced_account() -> None:
    """It was known to be fresh by the change document before the record was written."""

    async def test() -> None:
        world = World()
        await settled(world)

        def slow() -> None:
            world.on_store = lambda: None
            world.promote()
            world.uptime += OLDEST

        world.on_store = slow
        assert (await world.issuer.grant(READER, wanted())).lease.generation == 2

    run(test)


def test_leases_that_end_together_share_a_record() -> None:
    async def test() -> None:
        world = World()
        for _ in range(10):
            await world.issuer.grant(READER, wanted())
        assert world.calls["record"] == 2  # the second says that the holding is shared
        assert world.calls["evidence"] == 10

    run(test)


def test_a_record_covers_the_last_lease_exactly() -> None:
    async def test() -> None:
        world = World()
        ends = []
        for _ in range(20):
            world.now += timedelta(seconds=7)
            ends.append((await world.issuer.grant(READER, wanted())).lease.expires)
        assert max(h.until for h in world.records["entity-reader"].holdings if h.until) == max(ends)
        world.now = max(ends)
        assert not world.holders()

    run(test)


def test_slow_record_rereads_the_account() -> None:
    """A bundle of a generation that was current long ago never leaves."""

    async def test() -> None:
        world = World()

        def slow() -> None:
            world.on_record = lambda: None
            world.promote()
            world.uptime += OLDEST

        world.on_record = slow
        assert (await world.issuer.grant(READER, wanted())).lease.generation == 2
        assert world.holders(1) == {"reader"}, "a record too many, never one too few"

    run(test)


def test_vault_that_stays_slow_is_said() -> None:
    async def test() -> None:
        world = World()

        def slow() -> None:
            world.uptime += OLDEST

        world.on_store = slow
        with pytest.raises(VaultUnavailableError, match="too slow"):
            await world.issuer.grant(READER, wanted())

    run(test)


def test_a_promotion_is_seen_within_seconds() -> None:
    async def test() -> None:
        world = World()
        await world.issuer.grant(READER, wanted())
        world.promote()
        world.uptime += OLDEST / 2
        assert (await world.issuer.grant(READER, wanted())).lease.generation == 2

    run(test)


def test_strangers_learn_nothing() -> None:
    """The right is judged before anything else is looked at."""

    async def test() -> None:
        world = World(away="account")
        with pytest.raises(DeniedError):
            await world.issuer.grant(Caller(Secret("stranger")), wanted(application="none"))

    run(test)


def test_a_right_is_judged_once_for_some_seconds() -> None:
    async def test() -> None:
        world = World()
        for _ in range(5):
            await world.issuer.grant(READER, wanted())
        assert world.calls["judge"] == 1
        world.uptime += 5
        await world.issuer.grant(READER, wanted())
        assert world.calls["judge"] == 2

    run(test)


def test_a_flood_of_strangers_stops_no_consumer() -> None:
    """Garbage never takes every thread, and the queue of those who are unknown is their own."""

    async def test() -> None:
        world = World()
        await world.issuer.grant(READER, wanted())
        world.judging.clear()
        flood = [
            asyncio.create_task(world.issuer.grant(Caller(Secret(f"stranger {n}")), wanted())) for n in range(2000)
        ]
        while world.calls["judge"] < 1 + Limits().strangers:
            await asyncio.sleep(0.001)
        await world.issuer.grant(READER, wanted())
        world.uptime += 5
        asking = asyncio.create_task(world.issuer.grant(READER, wanted()))
        while world.calls["judge"] < 2 + Limits().strangers:
            await asyncio.sleep(0.001)
        world.judging.set()
        assert (await asking).lease.generation == 1
        ended = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(error) for error in ended} == {DeniedError, BusyError}

    run(test)


def test_refusal_is_judged_once_for_seconds() -> None:
    async def test() -> None:
        world = World()
        for _ in range(5):
            with pytest.raises(DeniedError) as refused:
                await world.issuer.grant(Caller(Secret("stranger")), wanted())
            assert refused.value.who == {"consumer": "stranger"}
        assert world.calls["judge"] == 1

    run(test)


def test_callers_do_not_share_judgements() -> None:
    async def test() -> None:
        world = World()
        await world.issuer.grant(READER, wanted())
        for caller in (Caller(Secret("stranger")), Caller(Secret("stranger"), is_jwt=True)):
            with pytest.raises(DeniedError):
                await world.issuer.grant(caller, wanted())

    run(test)


def test_same_idempotency_key_is_same_lease() -> None:
    async def test() -> None:
        world = World()
        first, second = [await world.issuer.grant(READER, wanted(idempotency_key="k")) for _ in range(2)]
        other = await world.issuer.grant(Caller(Secret("other")), wanted(idempotency_key="k"))
        assert first.lease.id == second.lease.id != other.lease.id
        assert len(world.records["entity-reader"].holdings) == 1
        assert not world.records["entity-reader"].holdings[0].shared

    run(test)


def test_a_renewal_keeps_the_generation() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted(ttl=timedelta(minutes=5)))
        world.promote()
        world.uptime += OLDEST
        world.now += timedelta(minutes=4)
        renewed = await world.issuer.renew(READER, granted.lease_text, HOUR)
        assert (renewed.lease.id, renewed.lease.generation, renewed.newer) == (granted.lease.id, 1, 2)
        assert renewed.lease.expires > granted.lease.expires
        assert world.holders(1) == {"reader"}
        assert world.evidence[-1].what == "lease-renewed"

    run(test)


def test_a_renewal_never_shortens_a_lease() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        renewed = await world.issuer.renew(READER, granted.lease_text, timedelta(seconds=30))
        assert renewed.lease.expires == granted.lease.expires

    run(test)


def test_a_lease_is_renewed_for_a_day() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted(ttl=timedelta(minutes=5)))
        text, renewed = granted.lease_text, granted.lease
        while world.now < NOW + timedelta(hours=24):
            world.now += min(timedelta(minutes=50), renewed.expires - world.now - timedelta(seconds=1))
            before, found = renewed, await world.issuer.renew(READER, text, HOUR)
            text, renewed = found.lease_text, found.lease
            if renewed.expires == before.expires:
                break
        assert renewed.first_issued == NOW
        assert timedelta(0) <= granted.lease.renewable_until - renewed.expires < timedelta(minutes=1)
        world.now = renewed.expires
        with pytest.raises(DeniedError):
            await world.issuer.renew(READER, text, HOUR)

    run(test)


def test_a_grant_by_an_old_record_is_revoked_too() -> None:
    """Another process revokes what a consumer holds; for two seconds this one does not read that."""

    async def test() -> None:
        world = World()
        for _ in range(2):
            await world.issuer.grant(READER, wanted())
        record = world.records["entity-reader"]
        world.records["entity-reader"] = record.ended(record.holdings[0], now=world.now)
        world.recent = world.recent.done(f"{CONSUMERS}entity-reader", 1)
        meanwhile = await world.issuer.grant(READER, wanted())
        assert not world.holders()
        with pytest.raises(DeniedError):
            await world.issuer.renew(READER, meanwhile.lease_text, HOUR)
        world.uptime += 2
        afterwards = await world.issuer.grant(READER, wanted())
        assert world.holders() == {"reader"}
        await world.issuer.renew(READER, afterwards.lease_text, HOUR)

    run(test)


def test_a_key_that_comes_back_is_a_new_lease() -> None:
    """Another process revokes it; this one knows the record from before, and that it covers such leases."""

    async def test() -> None:
        world = World()
        keyed = await world.issuer.grant(READER, wanted(idempotency_key="k"))
        for _ in range(2):
            await world.issuer.grant(READER, wanted())
        record = world.records["entity-reader"]
        world.records["entity-reader"] = record.without(keyed.lease, now=world.now)
        again = await world.issuer.grant(READER, wanted(idempotency_key="k"))
        assert again.lease.id == keyed.lease.id
        await world.issuer.renew(READER, again.lease_text, HOUR)

    run(test)


@pytest.mark.parametrize("what", ["record", "evidence"])
def test_nothing_is_renewed_if_vault_is_away(what: str) -> None:
    """Whether the lease was revoked cannot be known then."""

    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        world.away = what
        with pytest.raises(VaultUnavailableError):
            await world.issuer.renew(READER, granted.lease_text, HOUR)

    run(test)


def test_a_renewal_that_is_durable_too_late_fails() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted(ttl=timedelta(minutes=1)))

        def slow() -> None:
            world.now += timedelta(minutes=1)

        world.on_record = slow
        with pytest.raises(DeniedError):
            await world.issuer.renew(READER, granted.lease_text, HOUR)

    run(test)


def test_a_retired_generation_is_not_renewed() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        world.promote()
        world.account = moving.moved(world.account, 1, Move.RETIRE, STAMP)
        world.uptime += OLDEST
        with pytest.raises(RefusedError, match="retired"):
            await world.issuer.renew(READER, granted.lease_text, HOUR)

    run(test)


def test_a_revoked_lease_is_over() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        for _ in range(2):
            await world.issuer.revoke(READER, granted.lease_text)
        assert not world.holders()
        with pytest.raises(DeniedError):
            await world.issuer.renew(READER, granted.lease_text, HOUR)
        assert not world.holders()

    run(test)


@pytest.mark.parametrize("gone", ["secrets", "account"])
def test_a_bundle_is_given_back_when_all_is_gone(gone: str) -> None:
    """The secrets of a removed account are destroyed."""

    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        world.promote()
        world.uptime += OLDEST
        world.away = gone
        await world.issuer.revoke(READER, granted.lease_text)
        assert not world.holders()

    run(test)


def test_a_wrong_clock_revokes_nothing() -> None:
    """A revocation is kept for a time, counted from the date that this clock gives it."""

    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())

        def wrong() -> None:
            raise RefusedError("the clock is wrong")

        world.issuer._ports = replace(world.issuer._ports, require_true_clock=wrong)
        with pytest.raises(RefusedError):
            await world.issuer.revoke(READER, granted.lease_text)
        assert world.holders() == {"reader"}

    run(test)


def test_a_revoked_key_is_granted_again() -> None:
    async def test() -> None:
        world = World()
        for _ in range(2):
            granted = await world.issuer.grant(READER, wanted(idempotency_key="k"))
            await world.issuer.renew(READER, granted.lease_text, HOUR)
            assert world.holders() == {"reader"}
            await world.issuer.revoke(READER, granted.lease_text)
            assert not world.holders()
            with pytest.raises(DeniedError):
                await world.issuer.renew(READER, granted.lease_text, HOUR)

    run(test)


@pytest.mark.parametrize("text", ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
def test_forged_leases_are_refused(text: str) -> None:
    async def test() -> None:
        world = World()
        for use in (world.issuer.renew(READER, Secret(text), HOUR), world.issuer.revoke(READER, Secret(text))):
            with pytest.raises(DeniedError):
                await use

    run(test)


def test_another_consumer_cannot_use_a_lease() -> None:
    async def test() -> None:
        world = World()
        granted = await world.issuer.grant(READER, wanted())
        other = Caller(Secret("other"))
        for use in (
            world.issuer.renew(other, granted.lease_text, HOUR),
            world.issuer.revoke(other, granted.lease_text),
        ):
            with pytest.raises(DeniedError):
                await use
        assert world.holders() == {"reader"}

    run(test)


def test_one_revoked_lease_spoils_no_batch() -> None:
    async def test() -> None:
        world = World()
        ended, alive = [await world.issuer.grant(READER, wanted(idempotency_key=k)) for k in ("a", "b")]
        await world.issuer.revoke(READER, ended.lease_text)
        world.now += timedelta(minutes=10)
        world.gate.clear()
        blocking = asyncio.create_task(world.issuer.grant(READER, wanted()))
        while world.calls["evidence"] < 4:
            await asyncio.sleep(0.001)
        asking = [world.issuer.renew(READER, g.lease_text, HOUR) for g in (ended, alive)]
        waiting = asyncio.gather(*asking, return_exceptions=True)
        await asyncio.sleep(0.01)
        world.gate.set()
        refused, renewed = await waiting
        await blocking
        assert isinstance(refused, DeniedError)
        assert not isinstance(renewed, BaseException)

    run(test)


def test_a_caller_that_leaves_stops_no_other() -> None:
    async def test() -> None:
        world = World()
        world.gate.clear()
        asking = [asyncio.create_task(world.issuer.grant(READER, wanted())) for _ in range(3)]
        while not world.calls.get("evidence"):
            await asyncio.sleep(0.001)
        asking[0].cancel()
        world.gate.set()
        assert (
            len([g for g in await asyncio.gather(*asking, return_exceptions=True) if isinstance(g, BaseException)]) == 1
        )

    run(test)


def test_an_account_without_a_current_generation() -> None:
    async def test() -> None:
        world = World(account=replace(with_current(), generations=()))
        with pytest.raises(BrokerError) as refused:
            await world.issuer.grant(READER, wanted())
        assert isinstance(refused.value, RefusedError | ConflictError)

    run(test)


def test_a_refused_consumer_is_named_in_the_log() -> None:
    """As soon as it is known, so that whatever refuses its request later is logged with it."""
    named: list[object] = []

    async def test() -> None:
        log.send_to(log.Level.INFO, lambda _level, _event, fields: named.append(fields.get("entity")))
        with pytest.raises(VaultUnavailableError):
            await World(away="account").issuer.grant(READER, wanted())
        log.info("refused")

    try:
        run(test)
    finally:
        log.reset()
    assert named == ["entity-reader"]
