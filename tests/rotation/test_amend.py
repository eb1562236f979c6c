"""Changes under compare-and-set: repeated on the version that won, and never made twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from broker.copies import replace
from broker.errors import (
    BrokerError,
    ConflictError,
    PartlyUnavailableError,
    UnknownNameError,
    VaultUnavailableError,
)
from broker.model.account import Account
from broker.model.chain import Entry
from broker.model.changes import moving, registering, trying
from broker.model.clock import Stamp
from broker.model.compare_and_set import ATTEMPTS
from broker.model.names import AccountName
from broker.model.stage import Move, Stage
from broker.model.verdict import CanaryResult, Verdict
from broker.rotation.amend import amend, settle
from broker.rotation.ports import ForkedEvidenceError, Version, Versioned
from tests.rotation.life_cycle import Commands, Step, midway
from tests.rotation.simulation import Fault, Simulation
from tests.support.accounts import MZP, NOW, STAMP, assert_refused


def a_simulation() -> Simulation:
    return midway("open request").branch()


def name_application(account: Account, name: str = "billing") -> Account:
    return registering.application_set(account, name, "", STAMP)


def test_no_change_writes_nothing() -> None:
    sim = a_simulation()
    assert amend(sim, MZP, lambda account: account).account == sim.account
    assert sim.writes == []


def test_missing_account_is_unknown_name() -> None:
    with assert_refused(UnknownNameError):
        amend(Simulation(), MZP, name_application)


def test_change_is_repeated_on_the_winner() -> None:
    sim = a_simulation()
    sim.at, sim.meanwhile = 1, lambda: Commands(sim).application("fleet")
    amend(sim, MZP, name_application)
    assert [a.name for a in sim.account.applications] == ["billing", "fleet"]


def test_refused_on_winner_writes_nothing() -> None:
    sim = a_simulation()
    sim.at, sim.meanwhile = 1, lambda: Commands(sim).reject(3)
    with pytest.raises(Exception, match="rejected"):
        amend(sim, MZP, lambda account: moving.moved(account, 3, Move.PROMOTE, STAMP))
    assert sim.account.generation(3).stage is Stage.REJECTED


class Busy:
    """Accounts that somebody else changes before every write."""

    def __init__(self, sim: Simulation, times: int) -> None:
        self.sim, self.times = sim, times

    def read(self, name: AccountName) -> Versioned:
        return self.sim.read(MZP)

    def write(self, account: Account, replacing: Version) -> None:
        if self.times:
            self.times -= 1
            Commands(self.sim).application(f"other-{self.times}")
        self.sim.write(account, replacing=replacing)

    def landed(self, account: Account, replacing: Version) -> bool:
        return self.sim.landed(account, replacing=replacing)

    def names(self) -> Iterator[AccountName]:
        return self.sim.names()


@pytest.mark.slow
def test_gives_up_after_all_attempts_lost() -> None:
    amend(Busy(a_simulation(), ATTEMPTS - 1), MZP, name_application)
    busy = Busy(a_simulation(), ATTEMPTS)
    with assert_refused(ConflictError, "mzp-1"):
        amend(busy, MZP, name_application)
    assert "billing" not in {a.name for a in busy.sim.account.applications}


# -- a write whose answer was lost


MEANWHILE: dict[str, Step] = {
    "roll back": lambda c: c.roll_back(1),
    "settle": lambda c: c.settle(),
    "application": lambda c: c.application(),
}


class AnswerLost:
    """Accounts whose first write lands and comes back as a conflict, after `meanwhile` has changed more."""

    def __init__(self, sim: Simulation, *meanwhile: str) -> None:
        self.sim, self.meanwhile, self.lost = sim, meanwhile, False

    def read(self, name: AccountName) -> Versioned:
        return self.sim.read(MZP)

    def write(self, account: Account, replacing: Version) -> None:
        self.sim.write(account, replacing=replacing)
        if not self.lost:
            self.lost = True
            for what in self.meanwhile:
                MEANWHILE[what](Commands(self.sim, by="other"))
            raise ConflictError("it is there already")

    def landed(self, account: Account, replacing: Version) -> bool:
        return self.sim.landed(account, replacing=replacing)

    def names(self) -> Iterator[AccountName]:
        return self.sim.names()


def promoted(account: Account) -> Account:
    return moving.moved(account, 2, Move.PROMOTE, STAMP)


def before_promotion() -> Simulation:
    """Return a sim with generation 1 current and 2, a certificate, ready."""
    sim = Simulation()
    commands = Commands(sim)
    commands.open()
    commands.password("pw-1")
    for number in (1, 2):
        commands.draft()
        commands.answer(number)
        if number == 1:
            commands.promote(1)
            sim.now += timedelta(hours=1)
    return sim


@pytest.mark.parametrize(
    "meanwhile",
    [(), ("settle",), ("application",), ("application", "application"), ("settle", "application", "settle")],
)
def test_lost_response_is_found_by_reading(meanwhile: tuple[str, ...]) -> None:
    sim = before_promotion()
    after = amend(AnswerLost(sim, *meanwhile), MZP, promoted).account
    assert after.current == after.generation(2)
    assert sum(e.facts.get("move") == "promote" for e in sim.whole_chain()) == 2


@pytest.mark.parametrize(
    "meanwhile", [("roll back",), ("settle", "roll back"), ("settle", "roll back", "settle", "application", "settle")]
)
def test_undone_change_is_not_repeated(meanwhile: tuple[str, ...]) -> None:
    """The promotion landed and was rolled back by a person: to promote again would undo that person's work."""
    sim = before_promotion()
    after = amend(AnswerLost(sim, *meanwhile), MZP, promoted).account
    assert after.current == after.generation(1)
    assert after.rolled_back(after.generation(2))


def test_old_reset_leaves_a_new_breaker() -> None:
    """The reset landed, was settled, and the partner rejected the login once more, before we looked."""

    def rejected(account: Account) -> Account:
        parts, id_ = account.generation(1).parts, f"after {account.head.number}"
        sent = trying.canary_sent(account, 1, parts, id_, Stamp(NOW, "other"))
        answer = CanaryResult(Verdict.LOGIN_REJECTED)
        return trying.canary_answered(sent, sent.tries[-1].number, answer, Stamp(NOW, "other"))

    sim = before_promotion()
    amend(sim, MZP, rejected)
    lost = AnswerLost(sim, "settle", "rejected", "settle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MEANWHILE, "rejected", lambda c: amend(c.sim, MZP, rejected))
        after = amend(lost, MZP, lambda a: trying.breaker_reset(a, "unlocked", STAMP)).account
    assert after.breaker
    assert sum(e.what == "breaker-reset" for e in sim.whole_chain()) == 1


def test_unanswered_write_is_found_done() -> None:
    sim = before_promotion().branch(at=1, fault=Fault.ANSWER_LOST)
    with assert_refused(VaultUnavailableError):
        amend(sim, MZP, promoted)
    version = sim.read(MZP).version
    assert amend(sim, MZP, promoted).account.current
    assert sim.read(MZP).version == version


# -- whether anything was left to do


def test_lost_response_counts_as_changed() -> None:
    sim = before_promotion()
    assert amend(AnswerLost(sim, "settle", "roll back"), MZP, promoted).changed


def test_done_by_another_is_not_changed() -> None:
    sim = before_promotion().branch(at=1)
    by_another = partial(moving.moved, number=2, move=Move.PROMOTE, stamp=Stamp(NOW, "other"))
    sim.meanwhile = lambda: amend(sim, MZP, by_another)
    assert not amend(sim, MZP, promoted).changed
    assert sim.account.current == sim.account.generation(2)
    assert not amend(sim, MZP, promoted).changed


# -- settle


@pytest.mark.parametrize(
    ("error", "settles"),
    [(VaultUnavailableError("sealed"), 0), (PartlyUnavailableError("busy"), 1), (ConflictError("overtaken"), 1)],
)
def test_an_absent_vault_is_waited_for_once(error: BrokerError, settles: int) -> None:
    settled: list[AccountName] = []
    rotation = replace(a_simulation().rotation(), settle=settled.append)
    with pytest.raises(type(error)), rotation.settling(MZP):
        raise error
    assert settled == [MZP] * settles


def test_settling_twice_writes_nothing() -> None:
    sim = a_simulation()
    Commands(sim).settle()
    written = len(sim.writes)
    Commands(sim).settle()
    assert len(sim.writes) == written


def test_other_role_destroys_later() -> None:
    sim = a_simulation()
    Commands(sim).close(3)
    after = settle(MZP, accounts=sim, log=sim.append)
    assert after.outbox == ()
    assert after.doomed_keys == {"kv:3"}
    assert "kv:3" in sim.living_keys()
    Commands(sim).settle()
    assert "kv:3" not in sim.living_keys()


def test_evidence_comes_before_destruction() -> None:
    sim = a_simulation()
    Commands(sim).close(3)
    sim.writes.clear()
    Commands(sim).settle()
    assert sim.writes[-2:] == ["destroy key", "account"]
    assert set(sim.writes[:-2]) == {"evidence"}


def test_forged_entry_keeps_no_secret_alive() -> None:
    sim = a_simulation()
    Commands(sim).application()
    Commands(sim).close(3)
    first, second = sim.account.outbox[0], sim.account.outbox[1]

    def taken(entry: Entry) -> None:
        if entry == second:
            raise ForkedEvidenceError("another entry is there")
        sim.append(entry)

    for _ in range(2):
        with assert_refused(ForkedEvidenceError):
            settle(MZP, accounts=sim, log=taken, keys=sim.keys, secrets=sim.secrets)
        assert "kv:3" not in sim.living_keys()
        assert sim.account.doomed_keys == frozenset()
        assert sim.account.outbox[0] == second, "what is stored is settled, what is not still waits"
    assert sim.evidence[first.number] == first
    Commands(sim).settle()
    assert sim.account.outbox == ()


def test_no_evidence_no_destruction() -> None:
    sim = a_simulation()
    Commands(sim).close(3)

    def away(entry: Entry) -> None:
        raise VaultUnavailableError("no answer")

    with assert_refused(VaultUnavailableError):
        settle(MZP, accounts=sim, log=away, keys=sim.keys, secrets=sim.secrets)
    assert "kv:3" in sim.living_keys()
