"""Generations joined to what changed meanwhile, and secrets doomed when nothing living uses them."""

from __future__ import annotations

import pytest

from broker.errors import ConflictError, RefusedError, UnknownNameError
from broker.model import changes
from broker.model.account import Account
from broker.model.generation import KeyRef, PasswordRef
from broker.model.stage import Move, Stage
from broker.model.stamp import Stamp
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
    return changes.moved(tried(account, number) if ready else account, number, Move.PROMOTE, STAMP)


def roll_back(account: Account, number: int) -> Account:
    return changes.moved(account, number, Move.ROLL_BACK, STAMP)


def retire(account: Account, number: int) -> Account:
    return changes.moved(account, number, Move.RETIRE, STAMP)


def rebase(account: Account, number: int) -> Account:
    return changes.rebased(account, number, STAMP)


def restore(account: Account, number: int) -> Account:
    return changes.restored(account, number, STAMP)


def set_trust(account: Account, name: str) -> Account:
    return changes.trust_set(account, ca_set_named(name), STAMP)


# -- moves


@pytest.mark.parametrize("move", Move)
def test_a_generation_that_is_not_there_cannot_move(move: Move) -> None:
    with assert_refused(UnknownNameError, "generation 9"):
        changes.moved(with_current(), 9, move, STAMP)


def test_a_promotion_displaces_what_was_current_and_keeps_its_secrets() -> None:
    account = promote(with_answer(with_current()), 2)
    assert (account.generation(1).stage, account.generation(2).stage) == (Stage.PREVIOUS, Stage.CURRENT)
    assert (account.doomed_keys, account.doomed_passwords) == (frozenset(), frozenset())
    assert account.outbox[-1].facts["displaced"] == 1


def test_the_trust_of_what_became_current_is_the_one_that_counts() -> None:
    account = set_trust(with_current(), "server-ca-2")
    account = promote(account, 2)
    assert account.trust == ca_set_named("server-ca-2").ref


def test_a_certificate_from_before_a_new_trust_brings_its_own_trust_along() -> None:
    account = with_answer(set_trust(with_current(), "server-ca-2"))
    account = promote(changes.moved(account, 2, Move.REJECT, STAMP), 3)
    assert account.trust == parts_of(account, 3).trust == ca_set_named("server-ca").ref
    assert only(set_trust(account, "server-ca-2").candidates).parts.trust == ca_set_named("server-ca-2").ref


def test_retiring_dooms_what_no_living_generation_uses() -> None:
    account = retire(promote(with_answer(with_current()), 2), 1)
    assert account.doomed_keys == {"kv:1"}
    assert account.doomed_passwords == frozenset()


def test_rejecting_keeps_the_secrets_and_retiring_dooms_them() -> None:
    account = changes.moved(with_answer(with_current()), 2, Move.REJECT, STAMP, reason="wrong contract")
    assert account.doomed_keys == frozenset()
    assert account.outbox[-1].facts["reason"] == "wrong contract"
    assert retire(account, 2).doomed_keys == {"kv:2"}


def test_a_superseded_password_is_doomed_with_its_last_generation() -> None:
    assert retire(promote(with_new_password(with_current()), 2), 1).doomed_passwords == {1}


def test_the_text_of_a_retired_certificate_is_dropped_and_its_facts_stay() -> None:
    account = retire(promote(with_answer(with_current()), 2), 1)
    old, new = account.certificates
    assert (old.pem, old.serial) == ("", "01")
    assert new.pem


def test_the_text_of_a_pinned_ca_is_kept_though_no_generation_has_it_yet() -> None:
    account = changes.ca_accepted(with_answer(with_current()), ca_set_named("ca-2"), STAMP)
    account = set_trust(promote(account, 2), "server-ca-2")
    account = changes.moved(account, 3, Move.REJECT, STAMP)
    account = retire(retire(account, 1), 3)
    assert account.issuing
    assert account.trust
    assert account.ca_set(account.issuing).pem == "pem of ca-2"
    assert account.ca_set(account.trust).pem == "pem of server-ca-2"


def test_a_way_back_with_a_superseded_password_is_not_taken_as_it_is() -> None:
    account = promote(with_new_password(with_current()), 2)
    with assert_refused(ConflictError, "generation 2", "generation 1"):
        roll_back(account, 1)


def test_a_way_back_to_an_older_trust_is_not_taken_as_it_is() -> None:
    account = promote(set_trust(promote(with_answer(with_current()), 2), "server-ca-2"), 3)
    with assert_refused(ConflictError, "generation 3", "generation 1"):
        roll_back(account, 1)
    joined = only(restore(account, 1).candidates).parts
    assert (joined.key, joined.trust) == ("kv:1", ca_set_named("server-ca-2").ref)


def test_a_roll_back_runs_once_even_when_another_promotion_came_between() -> None:
    """Run again after another change, a roll-back is refused or done, never aimed at a third generation in silence."""
    account = with_rolled_back()
    assert_unchanged(account, lambda a: roll_back(a, 1))


def test_moves_are_in_order_though_the_clock_was_set_back() -> None:
    account = with_candidate()
    for number, hours in ((1, 6), (2, 1), (3, -9)):  # at the first the clock was ahead, then it was put right
        account = with_answer(account) if number > 1 else account
        account = changes.moved(account, number, Move.PROMOTE, Stamp(later(hours=hours), BY))
    since = [g.since for g in account.generations]
    assert since[0] < since[1] == since[2]
    assert account.outbox[-1].at == later(hours=-9), "the evidence has what the clock said"


# -- joining a candidate to what became current since


def test_a_candidate_is_joined_to_what_became_current_since() -> None:
    """Certificate of 2, password of 3: a new number, and 2 is rejected."""
    account = rebase(with_overtaken_candidate(), 2)
    joined = account.generation(4)
    assert account.generation(2).stage is Stage.REJECTED
    assert (joined.parts.certificate, joined.parts.key) == (parts_of(account, 2).certificate, "kv:2")
    assert (joined.parts.password, joined.base, joined.replaces) == (2, 3, 2)
    assert_sound(account)
    assert_unchanged(account, lambda a: rebase(a, 2))
    assert_unchanged(account, lambda a: rebase(a, 4))


def test_a_certificate_takes_its_key_and_its_issuing_ca_along() -> None:
    account = changes.ca_accepted(with_current(), ca_set_named("ca-2"), STAMP)
    account = promote(with_new_password(with_answer(account)), 3)
    joined = rebase(account, 2).generation(4).parts
    assert (joined.key, joined.issuing) == ("kv:2", ca_set_named("ca-2").ref)


def test_three_ways_each_with_one_part_are_all_joined() -> None:
    account = set_trust(with_new_password(with_answer(with_current())), "server-ca-2")
    account = promote(account, 3)
    account = promote(rebase(account, 4), 5)
    account = promote(rebase(account, 2), 6)
    assert parts_of(account, 6) == parts_of(account, 6).__class__(
        KeyRef("kv:2"), parts_of(account, 2).certificate, PasswordRef(2), ca_set_named("server-ca-2").ref,
        parts_of(account, 1).issuing,
    )  # fmt: skip
    assert_sound(account)


def test_a_part_that_both_changed_is_for_a_person() -> None:
    account = promote(with_answer(with_answer(with_current())), 2)
    with assert_refused(ConflictError, "generation 3", "generation 2", "same part"):
        rebase(account, 3)


def test_two_first_candidates_are_for_a_person() -> None:
    account = with_answer(with_candidate())
    with assert_refused(ConflictError, "same part"):
        rebase(promote(account, 1), 2)


def test_a_candidate_that_has_nothing_new_is_only_rejected() -> None:
    """The old certificate was joined twice, to two passwords; once the second is current, the first adds nothing."""
    account = restore(promote(with_new_password(promote(with_answer(with_current()), 2)), 3), 1)
    account = roll_back(restore(promote(with_new_password(account), 5), 1), 6)
    after = rebase(account, 4)
    assert after.generation(4).stage is Stage.REJECTED
    assert after.next_generation == account.next_generation
    assert_unchanged(after, lambda a: rebase(a, 4))


@pytest.mark.parametrize("number", [1, 3])
def test_what_needs_no_joining_is_left_alone(number: int) -> None:
    assert_unchanged(with_overtaken_candidate(), lambda a: rebase(a, number))


def test_nothing_is_joined_before_anything_is_current() -> None:
    assert_unchanged(with_candidate(), lambda a: rebase(a, 1))


def test_what_only_a_person_promotes_stays_so_when_it_is_joined() -> None:
    account = promote(with_new_password(with_rolled_back()), 3)
    assert only(rebase(account, 2).candidates).held


# -- going back


def test_the_old_certificate_is_joined_to_the_newest_proven_password() -> None:
    account = restore(promote(with_new_password(promote(with_answer(with_current()), 2)), 3), 1)
    joined = only(account.candidates)
    assert (joined.parts.certificate, joined.parts.password) == (parts_of(account, 1).certificate, 2)
    assert (joined.restores, joined.base) == (1, 3)
    assert_unchanged(account, lambda a: restore(a, 1))
    back = roll_back(tried(account, joined.number), joined.number)
    assert back.current == back.generation(4)
    assert back.generation(3).held
    assert_sound(back)


def test_where_only_the_password_differs_there_is_no_way_back() -> None:
    with assert_refused(RefusedError, "does not roll back"):
        restore(promote(with_new_password(with_current()), 2), 1)


def test_a_way_back_that_is_proven_needs_no_joining() -> None:
    assert_unchanged(promote(with_answer(with_current()), 2), lambda a: restore(a, 1))


@pytest.mark.parametrize("account", [with_current(), with_answer(with_current()), with_rolled_back()])
def test_what_is_not_previous_is_not_restored(account: Account) -> None:
    for generation in account.generations:
        assert_unchanged(account, lambda a, n=generation.number: restore(a, n))  # type: ignore[misc]


def test_a_way_back_that_was_overtaken_is_not_taken() -> None:
    account = restore(promote(with_new_password(promote(with_answer(with_current()), 2)), 3), 1)
    account = promote(with_new_password(account), 5)
    with assert_refused(ConflictError, "generation 5"):
        roll_back(account, 4)
    assert restore(account, 1).candidates[-1].parts.password == 3


def test_a_way_back_that_is_joined_again_is_still_one_that_no_machine_promotes() -> None:
    account = restore(promote(with_new_password(promote(with_answer(with_current()), 2)), 3), 1)
    account = rebase(promote(with_new_password(account), 5), 4)
    assert (account.candidates[-1].replaces, account.candidates[-1].restores) == (4, 1)


# -- business done


def test_what_is_done_is_dropped_and_nothing_else() -> None:
    account = retire(promote(with_answer(with_current()), 2), 1)
    after = changes.settled(account, account.outbox[:3], {KeyRef("kv:1"), KeyRef("kv:9")}, set())
    assert after.outbox == account.outbox[3:]
    assert after.doomed_keys == frozenset()
    assert after.head == account.head
    assert changes.settled(after, account.outbox[:3], {KeyRef("kv:1")}, set()) == after


def test_settling_does_not_drop_what_came_meanwhile() -> None:
    seen = an_account()
    newer = changes.application_set(seen, "fleet", "", STAMP)
    assert [e.what for e in changes.settled(newer, seen.outbox, set(), set()).outbox] == ["application-set"]
