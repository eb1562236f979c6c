"""Grant: authorize first, record before a bundle leaves, and deliver the current generation only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from broker.copies import replace
from broker.errors import BrokerError, ConflictError, DeniedError, RefusedError, UnknownNameError, VaultUnavailableError
from broker.evidence.journal import Journal
from broker.issuing.grant import Issuer, SetSecrets
from broker.issuing.leases import LeaseSigner
from broker.model.account import Account
from broker.model.authentication import PASSWORD, Authentication, Basic
from broker.model.bundle import Granted, Wanted
from broker.model.chain import Entry
from broker.model.changes import moving, registering
from broker.model.generation import Parts
from broker.model.holdings import ConsumerRecord, Which, held
from broker.model.lease import BundleKind, Consumer
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.stage import Move
from broker.model.waiting import Ended, Event
from broker.partners import catalogue
from tests.support.accounts import (
    BY,
    MZP,
    NOW,
    PLANTED,
    STAMP,
    assert_refused,
    later,
    with_answer,
    with_candidate,
    with_current,
)

READER = Consumer("entity-1", "reader")
KEYS = LeaseSigner("b", {"a": Secret(b"a" * 32), "b": Secret(b"b" * 32)})
HOUR = timedelta(hours=1)


def rotated(account: Account) -> Account:
    """Return `account` with its next certificate current, and the one before it retired."""
    before = account.current
    after = moving.moved(with_answer(account), account.next_generation, Move.PROMOTE, STAMP)
    assert before
    return moving.moved(after, before.number, Move.RETIRE, STAMP)


@dataclass
class Broker:
    """The ports of an issuer, and the order of calls to them."""

    account: Account = field(default_factory=with_current)
    now: datetime = NOW
    asked: list[str] = field(default_factory=list)
    records: dict[str, ConsumerRecord] = field(default_factory=dict)
    evidence: list[Entry] = field(default_factory=list)
    refuse: BrokerError | None = None
    away: str = ""
    wrong: bool = False  # the clock of the machine
    meanwhile: Callable[[Account], Account] = lambda account: account  # applied while a bundle is prepared

    def issuer(self) -> Issuer:
        return Issuer(
            accounts=self._read,
            profile=lambda account: catalogue.builtin(account.profile),
            authorize=self._authorize,
            read_secrets=self._secrets,
            consumers=self,
            journal=Journal("issued/test", self._store, lambda: self.now, BY),
            signer=KEYS,
            clock=self._clock,
        )

    def get(self, *, application: str = "fleet", ttl: timedelta = HOUR, allow_expired: bool = False) -> Granted:
        return self.issuer().grant(Wanted(MZP, application, ttl, allow_expired=allow_expired))

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        self._note("record")
        self.records[entity] = change(self.records.get(entity, ConsumerRecord(entity, name)))
        return self.records[entity]

    @property
    def holders(self) -> set[str]:
        return {record.name for record, h in held(self.records.values(), self.now, Which(generation=1))}

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.away == what:
            raise VaultUnavailableError("away")

    def _read(self, name: AccountName) -> Account:
        self._note("account")
        if name != self.account.name:
            raise UnknownNameError(f"there is no account {name}")
        return self.account

    def _authorize(self, account: Account, application: str, kind: BundleKind) -> Consumer:
        self._note("authorize")
        if self.refuse:
            raise self.refuse
        return READER

    def _clock(self) -> datetime:
        if self.wrong:
            raise RefusedError("the clock is wrong")
        return self.now

    def _secrets(self, name: AccountName, parts: Parts) -> SetSecrets:
        self._note("secrets")
        self.account = self.meanwhile(self.account)
        return SetSecrets(Secret(b"key"), {PASSWORD: Secret(PLANTED)})

    def _store(self, entry: Entry) -> None:
        self._note("evidence")
        self.evidence.append(entry)


def test_bundle_is_of_current_generation() -> None:
    broker = Broker()
    granted = broker.get()
    assert (granted.bundle.generation, granted.bundle.client_id) == (1, "id-fleet")
    assert granted.bundle.expires == granted.lease.expires == later(hours=1)
    assert KEYS.opened(granted.lease_text, now=NOW) == granted.lease
    assert granted.lease.consumer == READER.entity
    assert PLANTED not in repr(granted)


def test_steps_before_a_bundle_leaves() -> None:
    broker = Broker()
    broker.get()
    assert broker.asked == ["account", "authorize", "secrets", "record", "account", "evidence"]
    (entry,) = broker.evidence
    assert (entry.what, entry.facts["consumer"], entry.facts["generation"]) == ("bundle-issued", READER.entity, 1)
    assert broker.holders == {"reader"}


def test_denied_consumer_leaves_no_trace() -> None:
    broker = Broker(refuse=DeniedError("no"))
    with pytest.raises(DeniedError):
        broker.get()
    assert broker.asked == ["account", "authorize"]
    with pytest.raises(DeniedError):
        broker.get(application="none")
    assert not broker.records


@pytest.mark.parametrize("away", ["account", "authorize", "secrets", "record", "evidence"])
def test_nothing_is_granted_without_vault(away: str) -> None:
    broker = Broker(away=away)
    with pytest.raises(VaultUnavailableError):
        broker.get()
    assert not broker.evidence
    assert bool(broker.holders) is (away == "evidence")


@pytest.mark.parametrize("away", ["", "record"])
def test_interrupted_grant_holds_nothing(monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    broker = Broker()

    def stopped(_: Entry) -> None:
        assert broker.holders
        broker.away = away
        raise KeyboardInterrupt

    monkeypatch.setattr(broker, "_store", stopped)
    with pytest.raises(KeyboardInterrupt):
        broker.get()
    assert bool(broker.holders) is bool(away)


@pytest.mark.parametrize(
    ("account", "error"),
    [
        (with_candidate(), RefusedError),
        (registering.application_removed(with_current(), "fleet", STAMP), UnknownNameError),
    ],
    ids=["nothing is current", "no such application"],
)
def test_undeliverable_reads_no_secret(account: Account, error: type[BrokerError]) -> None:
    broker = Broker(account)
    with pytest.raises(error):
        broker.get()
    assert "secrets" not in broker.asked


def test_wrong_clock_dates_no_lease() -> None:
    broker = Broker(wrong=True)
    with pytest.raises(RefusedError, match="clock is wrong"):
        broker.get()
    assert broker.asked == ["account", "authorize"]
    assert not broker.records


def test_missing_client_id_is_refused() -> None:
    broker = Broker(registering.application_set(with_current(), "new", "", STAMP))
    with pytest.raises(RefusedError, match="no client_id yet"):
        broker.get(application="new")


def test_profile_may_need_no_client_id() -> None:
    broker = Broker(registering.application_set(with_current(), "new", "", STAMP))
    profile = replace(catalogue.builtin("stellantis"), authentication=Authentication((Basic(),)))
    issuer = replace(broker.issuer(), profile=lambda _: profile)
    bundle = issuer.grant(Wanted(MZP, "new", HOUR)).bundle
    assert (bundle.client_id, bundle.authentication.parts) == ("", (Basic(),))


def test_overtaken_grant_gives_newer_set() -> None:
    broker = Broker(
        meanwhile=lambda account: rotated(account) if account.current and account.current.number == 1 else account
    )
    granted = broker.get()
    assert granted.bundle.generation == 2
    assert [entry.facts["generation"] for entry in broker.evidence] == [2]
    assert not broker.holders, "the first set was not delivered"


@pytest.mark.parametrize(
    "stopped",
    [lambda a: registering.suspended(a, "stolen", STAMP), lambda a: registering.removed(a, "over", STAMP)],
    ids=["suspended", "removed"],
)
def test_account_stopped_meanwhile_gives_nothing(stopped: Callable[[Account], Account]) -> None:
    for broker in (Broker(meanwhile=stopped), Broker(account=stopped(with_current()))):
        with assert_refused(RefusedError, "account mzp-1"):
            broker.get()
        assert not broker.evidence
        assert not broker.holders


def test_overtaken_twice_is_a_conflict() -> None:
    broker = Broker(meanwhile=rotated)
    with pytest.raises(ConflictError, match="is being rotated"):
        broker.get()
    assert not broker.evidence
    assert not broker.records[READER.entity].holdings


def test_displaced_generation_is_not_given() -> None:
    """A `retire` that looked for holders before this grant was recorded would miss it."""

    def promoted(account: Account) -> Account:
        if account.next_generation > 2:
            return account
        return moving.moved(with_answer(account), 2, Move.PROMOTE, STAMP)

    broker = Broker(meanwhile=promoted)
    assert broker.get().bundle.generation == 2
    assert not broker.holders


@pytest.mark.parametrize(
    ("ttl", "granted"),
    [(timedelta(seconds=1), timedelta(seconds=1)), (HOUR, HOUR), (timedelta(days=900), HOUR)],
    ids=["a second", "an hour", "years"],
)
def test_lease_is_bounded_by_the_cap(ttl: timedelta, granted: timedelta) -> None:
    assert Broker().get(ttl=ttl).lease.expires == NOW + granted


def test_lease_ends_with_the_certificate() -> None:
    broker = Broker(now=later(days=365) - timedelta(minutes=5))
    assert broker.get().lease.expires == later(days=365)


def test_expired_set_needs_allow_expired() -> None:
    broker = Broker(now=later(days=365))
    with pytest.raises(RefusedError, match="expired on 2"):
        broker.get()
    assert broker.get(allow_expired=True).lease.expires == later(days=365, hours=1)
    with pytest.raises(RefusedError, match="expired on 2"):
        broker.get()


def test_returned_bundle_is_held_no_more() -> None:
    broker = Broker()
    issuer = broker.issuer()
    granted = issuer.grant(Wanted(MZP, "fleet", HOUR))
    issuer.give_back(granted)
    assert not broker.holders
    assert [entry.what for entry in broker.evidence] == ["bundle-issued", "bundle-returned"]
    issuer.give_back(granted)
    assert not broker.holders


def test_processes_share_a_holding() -> None:
    broker = Broker()
    issuer = broker.issuer()
    first, _ = (issuer.grant(Wanted(MZP, "fleet", HOUR)) for _ in range(2))
    assert len(broker.records[READER.entity].holdings) == 1
    issuer.give_back(first)
    assert broker.holders == {"reader"}
    broker.now = later(hours=1)
    assert not broker.holders


def test_a_held_bundle_is_renewed_by_another_only() -> None:
    broker = Broker()
    issuer, wanted = broker.issuer(), Wanted(MZP, "fleet", HOUR)
    granted = issuer.grant(wanted)
    assert issuer.renew(wanted, granted) is granted
    assert issuer.wait(granted) == Ended(Event.TIMEOUT)
    broker.account = rotated(broker.account)
    assert issuer.wait(granted) == Ended(Event.GENERATION, 2)
    assert issuer.renew(wanted, granted).lease.generation == 2
    broker.account = registering.suspended(broker.account, "stolen", STAMP)
    assert issuer.wait(granted) == Ended(Event.SUSPENDED)
    with assert_refused(RefusedError, "suspended"):
        issuer.renew(wanted, granted)
