"""Moves of generations: laid over the current set, joined, rolled back, and secrets doomed."""

from __future__ import annotations

import pytest

from broker.errors import ConflictError, RefusedError, UnknownNameError
from broker.model.account import Account
from broker.model.changes import moving, registering
from broker.model.clock import Stamp
from broker.model.generation import KeyRef
from broker.model.stage import Move, Stage
from tests.support.accounts import (
    BY,
    STAMP,
    an_account,
    assert_refused,
    assert_sound,
    assert_unchanged,
    ca_set_named,
    later,
    only,
    parts_of,
    tried,
    with_answer,
    with_candidate,
    with_current,
    with_new_password,
    with_overtaken_candidate,
    with_rolled_back,
)


def promote(account: Account, number: int) -> Account:
    """Promote `number`, which the partner accepted where it can still be tried."""
    ready = account.generation(number).stage.living if any(g.number == number for g in account.generations) else False
    return moving.moved(tried(account, number) if ready else account, number, Move.PROMOTE, STAMP)


def roll_back(account: Account, number: int) -> Account:
    return moving.moved(account, number, Move.ROLL_BACK, STAMP)


def retire(account: Account, number: int) -> Account:
    return moving.moved(account, number, Move.RETIRE, STAMP)


def join(account: Account, one: int, other: int) -> Account:
    return moving.joined(account, one, other, STAMP)


def reject(account: Account, number: int) -> Account:
    return moving.moved(account, number, Move.REJECT, STAMP)


def restore(account: Account, number: int) -> Account:
    return moving.restored(account, number, STAMP)


def set_trust(account: Account, name: str) -> Account:
    return registering.trust_set(account, ca_set_named(name), STAMP)


# -- moves


@pytest.mark.parametrize("move", Move)
def test_missing_generation_cannot_move(move: Move) -> None:
    with assert_refused(UnknownNameError, "generation 9"):
        moving.moved(with_current(), 9, move, STAMP)


def test_promotion_keeps_displaced_secrets() -> None:
    account = promote(with_answer(with_current()), 2)
    assert (account.generation(1).stage, account.generation(2).stage) == (Stage.PREVIOUS, Stage.CURRENT)
    assert (account.doomed_keys, account.doomed_secrets) == (frozenset(), frozenset())
    assert account.outbox[-1].facts["displaced"] == 1


def test_trust_follows_the_current_set() -> None:
    account = set_trust(with_current(), "server-ca-2")
    account = promote(account, 2)
    assert account.trust == ca_set_named("server-ca-2").ref


def test_waiting_trust_is_left_alone() -> None:
    account = promote(with_answer(set_trust(with_current(), "server-ca-2")), 3)
    assert account.trust == parts_of(account, 3).trust == ca_set_named("server-ca").ref
    assert promote(account, 2).trust == ca_set_named("server-ca-2").ref


def test_retiring_dooms_unused_secrets() -> None:
    account = retire(promote(with_answer(with_current()), 2), 1)
    assert account.doomed_keys == {"kv:1"}
    assert account.doomed_secrets == frozenset()


def test_rejecting_keeps_secrets() -> None:
    account = moving.moved(with_answer(with_current()), 2, Move.REJECT, STAMP, reason="wrong contract")
    assert account.doomed_keys == frozenset()
    assert account.outbox[-1].facts["reason"] == "wrong contract"
    assert retire(account, 2).doomed_keys == {"kv:2"}


def test_password_is_doomed_with_last_set() -> None:
    assert retire(promote(with_new_password(with_current()), 2), 1).doomed_secrets == {"password:1"}


def test_retired_certificate_keeps_its_facts() -> None:
    account = retire(promote(with_answer(with_current()), 2), 1)
    old, new = account.certificates
    assert (old.pem, old.serial) == ("", "01")
    assert new.pem


def test_pinned_ca_text_is_kept() -> None:
    account = registering.ca_accepted(with_answer(with_current()), ca_set_named("ca-2"), STAMP)
    account = set_trust(promote(account, 2), "server-ca-2")
    account = moving.moved(account, 3, Move.REJECT, STAMP)
    account = retire(retire(account, 1), 3)
    assert account.issuing
    assert account.trust
    assert account.ca_set(account.issuing).pem == "pem of ca-2"
    assert account.ca_set(account.trust).pem == "pem of server-ca-2"


def test_rollback_refuses_an_old_password() -> None:
    account = promote(with_new_password(with_current()), 2)
    with assert_refused(ConflictError, "generation 2", "generation 1"):
        roll_back(account, 1)


def test_rollback_refuses_an_old_trust() -> None:
    account = promote(set_trust(promote(with_answer(with_current()), 2), "server-ca-2"), 3)
    with assert_refused(ConflictError, "generation 3", "generation 1"):
        roll_back(account, 1)
    back = restore(account, 1)
    whole = back.parts_of(only(back.candidates))
    assert (whole.key, whole.trust) == ("kv:1", ca_set_named("server-ca-2").ref)


def test_rollback_runs_once() -> None:
    """Run again after another change, a roll-back is refused or done, never aimed at a third generation in silence."""
    account = with_rolled_back()
    assert_unchanged(account, lambda a: roll_back(a, 1))


def test_moves_are_counted() -> None:
    account = with_candidate()
    for number, hours in ((1, 6), (2, 1), (3, -9)):  # at the first the clock was ahead, then it was put right
        account = with_answer(account) if number > 1 else account
        account = moving.moved(account, number, Move.PROMOTE, Stamp(later(hours=hours), BY))
    orders = [g.order for g in account.generations]
    assert orders == sorted(set(orders))
    assert account.generation(3).since == account.outbox[-1].at == later(hours=-9)


# -- a candidate is what it changes


def test_candidate_is_laid_over_current() -> None:
    """Certificate of 2, password of 3: its number stays."""
    account = promote(with_overtaken_candidate(), 2)
    assert parts_of(account, 2).secrets == {"password": 2}
    assert parts_of(account, 2).complete
    assert account.generation(3).stage is Stage.PREVIOUS
    assert_sound(account)


def test_certificate_brings_key_and_issuer() -> None:
    account = registering.ca_accepted(with_current(), ca_set_named("ca-2"), STAMP)
    account = promote(promote(with_new_password(with_answer(account)), 3), 2)
    assert (parts_of(account, 2).key, parts_of(account, 2).issuing) == ("kv:2", ca_set_named("ca-2").ref)


def test_three_candidates_add_up() -> None:
    account = set_trust(with_new_password(with_answer(with_current())), "server-ca-2")
    for number in (3, 4, 2):
        account = promote(account, number)
    parts = parts_of(account, 2)
    assert (parts.key, parts.secrets, parts.trust) == ("kv:2", {"password": 2}, ca_set_named("server-ca-2").ref)
    assert_sound(account)


def test_renewal_rejects_older_candidates() -> None:
    account = promote(with_new_password(with_answer(with_answer(with_current()))), 3)
    assert account.generation(2).stage is Stage.REJECTED
    assert account.generation(4).stage is Stage.CANDIDATE, "it changes another part"
    assert account.outbox[-1].facts["reason"] == "overtaken by generation 3"
    assert_sound(account)


def test_renewal_keeps_newer_candidates() -> None:
    account = promote(with_answer(with_answer(with_current())), 2)
    assert only(account.candidates).number == 3


def test_first_renewal_rejects_the_older() -> None:
    account = promote(with_answer(with_candidate()), 2)
    assert account.generation(1).stage is Stage.REJECTED


def test_named_secret_is_a_part() -> None:
    account = registering.secret_set(with_answer(with_current()), "hmac", 1, STAMP)
    account = promote(promote(account, 3), 2)
    assert parts_of(account, 2).secrets == {"password": 1, "hmac": 1}
    account = promote(registering.secret_set(account, "hmac", 2, STAMP), 4)
    account = retire(retire(account, 3), 2)
    assert account.doomed_secrets == {"hmac:1"}
    assert_sound(account)


# -- two that wait, joined before their try


def test_two_candidates_are_joined_into_one() -> None:
    account = join(with_new_password(with_answer(with_current())), 2, 3)
    one = only(account.candidates)
    assert one.parts.names == {"certificate", "secret password"}
    assert {account.generation(n).stage for n in (2, 3)} == {Stage.REJECTED}
    assert_unchanged(account, lambda a: join(a, 2, 3))
    assert_unchanged(account, lambda a: join(a, 3, 2))
    promoted = promote(account, one.number)
    assert_unchanged(promoted, lambda a: join(a, 2, 3))
    assert_sound(promoted)


def test_same_part_is_not_joined() -> None:
    with assert_refused(RefusedError, "generations 2 and 3", "certificate"):
        join(with_answer(with_answer(with_current())), 2, 3)


@pytest.mark.parametrize("other", [1, 3])
def test_only_candidates_are_joined(other: int) -> None:
    account = reject(with_new_password(with_answer(with_current())), 3)
    with assert_refused(RefusedError, f"generation {other}"):
        join(account, 2, other)


# -- going back


def gone_back() -> Account:
    """Return 1 (a certificate) waiting to come back over the password of 3."""
    return restore(promote(with_new_password(promote(with_answer(with_current()), 2)), 3), 1)


def test_certificate_comes_back() -> None:
    account = gone_back()
    candidate = only(account.candidates)
    assert candidate.parts == parts_of(account, 1).certified
    assert account.reuses_certificate(candidate)
    assert account.automatic_candidate is None
    assert_unchanged(account, lambda a: restore(a, 1))
    back = roll_back(tried(account, candidate.number), candidate.number)
    assert back.current == back.generation(4)
    assert parts_of(back, 4).secrets == {"password": 2}
    assert back.rolled_back(back.generation(3))
    assert_sound(back)


def test_same_certificate_has_no_rollback() -> None:
    other_cas = registering.trust_set(with_current(), ca_set_named("other"), STAMP)
    for account, verb in ((with_new_password(with_current()), "password set"), (other_cas, "trust set")):
        with pytest.raises(RefusedError, match="nothing to roll back") as caught:
            restore(promote(account, 2), 1)
        assert caught.value.hint.startswith(f"broker {verb} ")


def test_same_secrets_need_no_candidate() -> None:
    assert_unchanged(promote(with_answer(with_current()), 2), lambda a: restore(a, 1))


@pytest.mark.parametrize("account", [with_current(), with_answer(with_current())])
def test_only_previous_is_restored(account: Account) -> None:
    for generation in account.generations:
        assert_unchanged(account, lambda a, n=generation.number: restore(a, n))  # type: ignore[misc]


def test_way_back_is_laid_over_current() -> None:
    account = promote(with_new_password(gone_back()), 5)
    assert_unchanged(account, lambda a: restore(a, 1))
    assert parts_of(roll_back(tried(account, 4), 4), 4).secrets == {"password": 3}


def test_a_roll_back_rejects_nothing() -> None:
    account = roll_back(tried(with_new_password(with_answer(gone_back())), 4), 4)
    assert [g.number for g in account.candidates] == [5, 6]


def test_retiring_rejects_the_way_back() -> None:
    account = retire(gone_back(), 1)
    assert account.generation(4).stage is Stage.REJECTED
    assert_sound(account)


def test_displaced_set_is_promoted_by_name() -> None:
    account = with_rolled_back()
    assert account.rolled_back(account.generation(2))
    with assert_refused(RefusedError, "generation 2", "previous"):
        roll_back(account, 2)
    after = promote(account, 2)
    assert not after.rolled_back(after.generation(1))
    with assert_refused(RefusedError, "generation 1", "previous"):
        promote(after, 1)


# -- business done


def test_only_settled_items_are_dropped() -> None:
    account = retire(promote(with_answer(with_current()), 2), 1)
    after = moving.settled(account, account.outbox[:3], {KeyRef("kv:1"), KeyRef("kv:9")}, set())
    assert after.outbox == account.outbox[3:]
    assert after.doomed_keys == frozenset()
    assert after.head == account.head
    assert moving.settled(after, account.outbox[:3], {KeyRef("kv:1")}, set()) == after


def test_settling_keeps_newer_items() -> None:
    seen = an_account()
    newer = registering.application_set(seen, "fleet", "", STAMP)
    assert [e.what for e in moving.settled(newer, seen.outbox, set(), set()).outbox] == ["application-set"]
