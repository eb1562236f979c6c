"""One way to change an account: under compare-and-set, again on whatever won, and never twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from broker.errors import ConflictError, UnknownNameError, VaultUnavailableError
from broker.model import changes
from broker.model.account import Account
from broker.model.evidence import Entry
from broker.model.names import AccountName
from broker.model.stage import Move, Stage
from broker.rotation.amend import ATTEMPTS, amend, amend_and_tell, settle
from broker.rotation.ports import ForkedEvidenceError, Version, Versioned
from tests.rotation.life import Commands, Step, midway
from tests.rotation.world import Fault, World
from tests.support.accounts import BY, MZP, NOW, assert_refused


def a_world() -> World:
    return midway("open request").branch()


def name_application(account: Account, name: str = "billing") -> Account:
    return changes.application_set(account, name, "", at=NOW, by=BY)


def test_a_change_that_finds_nothing_to_do_writes_nothing() -> None:
    world = a_world()
    assert amend(world, MZP, lambda account: account) == world.account
    assert world.writes == []


def test_an_account_that_is_not_there_is_an_unknown_name() -> None:
    with assert_refused(UnknownNameError):
        amend(World(), MZP, name_application)


def test_a_change_is_made_again_on_whatever_won() -> None:
    world = a_world()
    world.at, world.meanwhile = 1, lambda: Commands(world).application("fleet")
    amend(world, MZP, name_application)
    assert [a.name for a in world.account.applications] == ["billing", "fleet"]


def test_a_change_that_is_refused_on_what_won_writes_nothing() -> None:
    world = a_world()
    world.at, world.meanwhile = 1, lambda: Commands(world).reject(3)
    with pytest.raises(Exception, match="rejected"):
        amend(world, MZP, lambda account: changes.moved(account, 3, Move.PROMOTE, at=NOW, by=BY))
    assert world.account.generation(3).stage is Stage.REJECTED


class Busy:
    """Accounts that somebody else changes before every write."""

    def __init__(self, world: World, times: int) -> None:
        self.world, self.times = world, times

    def read(self, name: AccountName) -> Versioned:
        return self.world.read(MZP)

    def write(self, account: Account, *, replacing: Version) -> None:
        if self.times:
            self.times -= 1
            Commands(self.world).application(f"other-{self.times}")
        self.world.write(account, replacing=replacing)

    def landed(self, account: Account, *, replacing: Version) -> bool:
        return self.world.landed(account, replacing=replacing)

    def names(self) -> Iterator[AccountName]:
        return self.world.names()


def test_it_goes_on_while_others_win_and_says_so_when_they_keep_winning() -> None:
    amend(Busy(a_world(), ATTEMPTS - 1), MZP, name_application)
    busy = Busy(a_world(), ATTEMPTS)
    with assert_refused(ConflictError, "mzp-1"):
        amend(busy, MZP, name_application)
    assert "billing" not in {a.name for a in busy.world.account.applications}


# -- a write whose answer was lost


MEANWHILE: dict[str, Step] = {
    "roll back": lambda c: c.roll_back(1),
    "settle": lambda c: c.settle(),
    "application": lambda c: c.application(),
}


class AnswerLost:
    """Accounts whose first write lands and comes back as a conflict, after `meanwhile` has changed more."""

    def __init__(self, world: World, *meanwhile: str) -> None:
        self.world, self.meanwhile, self.lost = world, meanwhile, False

    def read(self, name: AccountName) -> Versioned:
        return self.world.read(MZP)

    def write(self, account: Account, *, replacing: Version) -> None:
        self.world.write(account, replacing=replacing)
        if not self.lost:
            self.lost = True
            for what in self.meanwhile:
                MEANWHILE[what](Commands(self.world, by="other"))
            raise ConflictError("it is there already")

    def landed(self, account: Account, *, replacing: Version) -> bool:
        return self.world.landed(account, replacing=replacing)

    def names(self) -> Iterator[AccountName]:
        return self.world.names()


def promoted(account: Account) -> Account:
    return changes.moved(account, 2, Move.PROMOTE, at=NOW, by=BY)


def before_promotion() -> World:
    """Return a world with generation 1 current and 2, a certificate, ready."""
    world = World()
    commands = Commands(world)
    commands.open()
    commands.password("pw-1")
    for number in (1, 2):
        commands.draft()
        commands.answer(number)
        if number == 1:
            commands.promote(1)
            world.now += timedelta(hours=1)
    return world


@pytest.mark.parametrize(
    "meanwhile",
    [(), ("settle",), ("application",), ("application", "application"), ("settle", "application", "settle")],
)
def test_a_lost_answer_is_settled_by_reading(meanwhile: tuple[str, ...]) -> None:
    world = before_promotion()
    after = amend(AnswerLost(world, *meanwhile), MZP, promoted)
    assert after.current == after.generation(2)
    assert sum(e.facts.get("move") == "promote" for e in world.told()) == 2


@pytest.mark.parametrize(
    "meanwhile", [("roll back",), ("settle", "roll back"), ("settle", "roll back", "settle", "application", "settle")]
)
def test_a_change_whose_answer_was_lost_is_not_made_again_on_top_of_what_undid_it(meanwhile: tuple[str, ...]) -> None:
    """The promotion landed and was rolled back by a person: to promote again would undo that person's work."""
    world = before_promotion()
    after = amend(AnswerLost(world, *meanwhile), MZP, promoted)
    assert after.current == after.generation(1)
    assert after.generation(2).held


def test_a_breaker_that_tripped_again_is_not_reset_by_a_persons_old_word() -> None:
    """The reset landed, was settled, and the partner rejected the login once more, before we looked."""

    def rejected(account: Account) -> Account:
        sent = changes.canary_sent(account, 1, f"after {account.head.number}", at=NOW, by="other")
        return changes.canary_answered(
            sent, sent.tries[-1].number, "login_rejected", login_rejected=True, at=NOW, by="other"
        )

    world = before_promotion()
    amend(world, MZP, rejected)
    lost = AnswerLost(world, "settle", "rejected", "settle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MEANWHILE, "rejected", lambda c: amend(c.world, MZP, rejected))
        after = amend(lost, MZP, lambda a: changes.breaker_reset(a, reason="unlocked", at=NOW, by=BY))
    assert after.breaker
    assert sum(e.what == "breaker-reset" for e in world.told()) == 1


def test_what_vault_does_not_answer_is_told_and_the_same_again_finds_it_done() -> None:
    world = before_promotion().branch(at=1, fault=Fault.ANSWER_LOST)
    with assert_refused(VaultUnavailableError):
        amend(world, MZP, promoted)
    version = world.read(MZP).version
    assert amend(world, MZP, promoted).current
    assert world.read(MZP).version == version


# -- whether anything was left to do


def test_a_change_whose_answer_was_lost_was_made_by_us() -> None:
    world = before_promotion()
    assert amend_and_tell(AnswerLost(world, "settle", "roll back"), MZP, promoted)


def test_what_another_did_first_was_not_left_to_do() -> None:
    world = before_promotion().branch(at=1)
    by_another = partial(changes.moved, number=2, move=Move.PROMOTE, at=NOW, by="other")
    world.meanwhile = lambda: amend(world, MZP, by_another)
    assert not amend_and_tell(world, MZP, promoted)
    assert world.account.current == world.account.generation(2)
    assert not amend_and_tell(world, MZP, promoted)


# -- settle


def test_settling_what_is_settled_writes_nothing() -> None:
    world = a_world()
    Commands(world).settle()
    written = len(world.writes)
    Commands(world).settle()
    assert len(world.writes) == written


def test_a_role_that_may_not_destroy_leaves_that_to_one_that_may() -> None:
    world = a_world()
    Commands(world).close(3)
    after = settle(MZP, accounts=world, log=world.append)
    assert after.outbox == ()
    assert after.doomed_keys == {"kv:3"}
    assert "kv:3" in world.living_keys()
    Commands(world).settle()
    assert "kv:3" not in world.living_keys()


def test_nothing_is_destroyed_before_its_evidence_is_stored() -> None:
    world = a_world()
    Commands(world).close(3)
    world.writes.clear()
    Commands(world).settle()
    assert world.writes[-2:] == ["destroy key", "account"]
    assert set(world.writes[:-2]) == {"evidence"}


def test_who_takes_the_place_of_an_entry_keeps_no_secret_alive_and_is_told() -> None:
    world = a_world()
    Commands(world).application()
    Commands(world).close(3)
    first, second = world.account.outbox[0], world.account.outbox[1]

    def taken(entry: Entry) -> None:
        if entry == second:
            raise ForkedEvidenceError("another entry is there")
        world.append(entry)

    for _ in range(2):
        with assert_refused(ForkedEvidenceError):
            settle(MZP, accounts=world, log=taken, keys=world.keys, passwords=world.passwords)
        assert "kv:3" not in world.living_keys()
        assert world.account.doomed_keys == frozenset()
        assert world.account.outbox[0] == second, "what is stored is settled, what is not still waits"
    assert world.evidence[first.number] == first
    Commands(world).settle()
    assert world.account.outbox == ()


def test_while_vault_takes_no_evidence_nothing_is_destroyed() -> None:
    world = a_world()
    Commands(world).close(3)

    def away(entry: Entry) -> None:
        raise VaultUnavailableError("no answer")

    with assert_refused(VaultUnavailableError):
        settle(MZP, accounts=world, log=away, keys=world.keys, passwords=world.passwords)
    assert "kv:3" in world.living_keys()
