"""Changes of a client_id: another one is a candidate, a promotion gives it to consumers, a roll-back brings it back."""

import pytest

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.changes import moving, registering
from broker.model.clock import Stamp
from broker.model.generation import Application, Parts
from broker.model.history import account_state, fold
from broker.model.stage import Move, Stage
from tests.support.accounts import (
    BY,
    STAMP,
    an_account,
    assert_refused,
    assert_sound,
    assert_unchanged,
    later,
    only,
    parts_of,
    promoted,
    tried,
    with_answer,
    with_candidate,
    with_current,
    with_new_password,
)


def set_id(account: Account, client_id: str, name: str = "fleet") -> Account:
    return registering.application_set(account, name, client_id, STAMP)


def given(account: Account) -> dict[str, str]:
    """Return the client_ids that consumers are given."""
    assert_sound(account)
    return account.client_ids


def back(account: Account, number: int) -> Account:
    """Roll back to generation `number`, as the use-case does."""
    account = moving.restored(account, number, STAMP)
    target = moving.rollback_target(account, account.generation(number)).number
    return moving.moved(tried(account, target, at=later(hours=1)), target, Move.ROLL_BACK, Stamp(later(hours=1), BY))


def changed() -> Account:
    """Return an account whose generation 2 has another client_id than generation 1."""
    return promoted(set_id(with_current(), "id-2"), 2)


@pytest.mark.parametrize("account", [an_account(), with_candidate()], ids=["new", "candidate"])
def test_nothing_current_is_set_directly(account: Account) -> None:
    after = set_id(set_id(account, "id-1"), "id-2")
    assert given(after)["fleet"] == "id-2"
    assert after.generations == account.generations


def test_first_client_id_is_set_directly() -> None:
    after = set_id(set_id(with_current(), "", "new"), "id-new", "new")
    assert given(after) == {"fleet": "id-fleet", "new": "id-new"}
    assert not after.candidates


def test_another_one_is_a_candidate() -> None:
    account = set_id(with_current(), "id-2")
    assert given(account) == {"fleet": "id-fleet"}
    assert only(account.candidates).parts == Parts(client_ids={"fleet": "id-2"})
    assert only(account.candidates).parts.names == {"client_id fleet"}
    assert account.asked_with(account.parts_of(account.generation(2))) == (Application("fleet", "id-2"),)
    assert_unchanged(account, lambda a: set_id(a, "id-2"))


def test_promotion_gives_it() -> None:
    account = changed()
    assert given(account) == {"fleet": "id-2"}
    assert parts_of(account, 1).client_ids == {"fleet": "id-fleet"}
    assert account.asked_with(account.parts_of(account.generation(2))) == account.applications


def test_roll_back_brings_the_old_one() -> None:
    account = back(changed(), 1)
    assert (account.current and account.current.number, given(account)) == (1, {"fleet": "id-fleet"})
    again = moving.moved(tried(account, 2), 2, Move.PROMOTE, STAMP)
    assert given(again) == {"fleet": "id-2"}


def test_it_comes_back_over_a_new_password() -> None:
    account = back(promoted(with_new_password(changed()), 3), 1)
    assert account.current
    assert (account.current.number, account.current.parts.password) == (4, 2)
    assert given(account) == {"fleet": "id-fleet"}


def test_roll_back_over_two_changes() -> None:
    """Generation 1 has the first client_id, though generation 2 did not replace it."""
    account = promoted(set_id(promoted(with_answer(with_current()), 2), "id-3"), 3)
    assert given(back(account, 2)) == given(back(account, 1)) == {"fleet": "id-fleet"}
    assert given(back(promoted(set_id(account, "id-4"), 4), 3)) == {"fleet": "id-3"}


def test_renewal_keeps_the_new_one() -> None:
    """A certificate that waited meanwhile is laid over the new client_id."""
    account = set_id(with_answer(with_current()), "id-2")
    after = promoted(promoted(account, 3), 2)
    assert given(after) == {"fleet": "id-2"}
    assert given(back(after, 3)) == {"fleet": "id-2"}


def test_last_one_replaces_its_candidate() -> None:
    account = set_id(set_id(with_current(), "typo"), "id-2")
    assert account.generation(2).stage is Stage.REJECTED
    assert only(account.candidates).parts == Parts(client_ids={"fleet": "id-2"})


def test_old_one_again_withdraws_the_new() -> None:
    account = set_id(set_id(with_current(), "typo"), "id-fleet")
    assert not account.candidates
    assert given(account) == {"fleet": "id-fleet"}


def test_withdrawal_leaves_a_joined_certificate() -> None:
    account = set_id(with_answer(with_current()), "id-2")
    joined = moving.joined(account, 2, 3, STAMP)
    assert parts_of(joined, 4).names == {"certificate", "client_id fleet"}
    assert given(promoted(joined, 4)) == {"fleet": "id-2"}
    assert only(set_id(joined, "id-fleet").candidates).parts == parts_of(account, 2)


def test_joined_candidate_is_found_when_current() -> None:
    account = moving.joined(set_id(with_answer(with_current()), "id-2"), 2, 3, STAMP)
    assert_unchanged(promoted(account, 4), lambda a: moving.joined(a, 2, 3, STAMP))


def test_two_applications_are_two_parts() -> None:
    account = set_id(set_id(set_id(with_current(), "id-t", "tours"), "id-2"), "id-3", "tours")
    assert [c.parts.client_ids for c in account.candidates] == [{"fleet": "id-2"}, {"tours": "id-3"}]
    assert given(promoted(promoted(account, 2), 3)) == {"fleet": "id-2", "tours": "id-3"}
    both = moving.joined(account, 2, 3, STAMP)
    assert len(both.asked_with(both.parts_of(both.generation(4)))) == 2


@pytest.mark.parametrize("account", [set_id(with_current(), "id-2"), changed(), set_id(changed(), "id-3")])
def test_removed_application_leaves_nothing(account: Account) -> None:
    removed = registering.application_removed(account, "fleet", STAMP)
    assert not any(c.parts.client_ids for c in removed.candidates)
    assert given(set_id(removed, "id-new")) == {"fleet": "id-new"}


def test_same_set_has_no_roll_back() -> None:
    account = promoted(with_new_password(changed()), 3)
    with assert_refused(RefusedError, "certificate and client_ids"):
        back(account, 2)


@pytest.mark.parametrize("number", [1, 2])
def test_rewritten_client_id_is_seen(number: int) -> None:
    """A client_id that a roll-back or a promotion would bring, written past the rules, differs from the evidence."""
    account = changed() if number == 1 else set_id(with_current(), "id-2")
    others = tuple(
        replace(g, parts=replace(g.parts, client_ids={"fleet": "other"})) if g.number == number else g
        for g in account.generations
    )
    assert fold(account.outbox) != account_state(replace(account, generations=others))


def test_two_truths_are_a_contradiction() -> None:
    account = changed()
    with pytest.raises(ValueError, match="other client_ids than its current generation"):
        replace(account, applications=(Application("fleet", "other"),))
    with pytest.raises(ValueError, match="application that has none"):
        replace(account, applications=())
