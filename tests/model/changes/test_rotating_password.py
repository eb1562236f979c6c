"""A password rotation: steps in order, each with who and when, whoever does them."""

from __future__ import annotations

import pytest

from broker.copies import replace
from broker.errors import RefusedError
from broker.evidence.tamper import differences
from broker.model.account import Account
from broker.model.changes import moving, trying
from broker.model.changes.rotating_password import rotation_aborted, rotation_begun, step_confirmed
from broker.model.clock import Stamp
from broker.model.history import account_state, fold
from broker.model.password_rotation import PasswordRotation, PasswordStep
from broker.model.stage import Move, Stage
from broker.model.verdict import CanaryResult, Verdict
from tests.support.accounts import (
    NOW,
    STAMP,
    an_account,
    assert_refused,
    assert_sound,
    assert_unchanged,
    later,
    promoted,
    tried,
    with_answer,
    with_current,
    with_new_password,
    without_texts,
)

ASKED, SET, DEAD = PasswordStep.ASKED, PasswordStep.SET, PasswordStep.DEAD


def begun() -> Account:
    return rotation_begun(with_current(), STAMP)


def confirmed(account: Account, *steps: PasswordStep, by: str = "ops") -> Account:
    for step in steps:
        account = step_confirmed(account, step, "", Stamp(later(days=1), by))
    return account


def under_way(account: Account) -> PasswordRotation:
    assert account.password_rotation
    return account.password_rotation


def shown(account: Account) -> list[str]:
    return [one.step.value for one in under_way(account).steps]


def test_steps_are_noted_by_whoever_does_them() -> None:
    account = with_new_password(confirmed(begun(), ASKED, SET, by="bea"))
    account = promoted(account, 2)
    assert shown(account) == ["asked", "set", "stored", "tried", "promoted"]
    assert [(one.by, one.at) for one in under_way(account).steps[1:3]] == [("bea", later(days=1)), ("ops", NOW)]
    assert under_way(account).next is DEAD
    over = confirmed(account, DEAD)
    assert over.password_rotation is None
    assert_sound(account)
    assert_sound(over)


def test_beginning_again_goes_on() -> None:
    account = confirmed(begun(), ASKED)
    assert_unchanged(account, lambda a: rotation_begun(a, STAMP))
    assert_unchanged(account, lambda a: confirmed(a, ASKED, by="bea"))


@pytest.mark.parametrize("step", [SET, DEAD])
def test_no_step_is_skipped(step: PasswordStep) -> None:
    with assert_refused(RefusedError, "after step asked (the partner", "), which is not done"):
        confirmed(begun(), step)


def test_the_old_one_dies_last() -> None:
    with assert_refused(RefusedError, "after step promoted (consumers get it), which is not done"):
        confirmed(tried(with_new_password(confirmed(begun(), ASKED, SET)), 2), DEAD)


def test_a_stored_password_counts() -> None:
    """It was set before anybody began the rotation."""
    account = rotation_begun(with_new_password(with_current()), STAMP)
    assert shown(account) == ["stored"]
    assert_sound(account)


def test_another_password_is_tried_again() -> None:
    account = tried(with_new_password(begun()), 2)
    assert shown(account) == ["stored", "tried"]
    assert shown(with_new_password(account)) == ["stored"]


def test_another_password_undoes_no_promotion() -> None:
    """The old one is replaced by then, so it can be confirmed as dead, also if another one is stored meanwhile."""
    account = promoted(with_new_password(confirmed(begun(), ASKED, SET)), 2)
    other = with_new_password(account)
    assert under_way(other) == under_way(account)
    over = confirmed(other, DEAD)
    assert over.password_rotation is None
    assert [g.number for g in over.candidates] == [3]
    assert_sound(over)


def test_a_refused_password_is_not_tried() -> None:
    account = with_new_password(begun())
    sent = trying.canary_sent(account, 2, account.parts_of(account.generation(2)), "1", STAMP)
    answered = trying.canary_answered(sent, sent.tries[-1].number, CanaryResult(Verdict.LOGIN_REJECTED), STAMP)
    assert shown(answered) == ["stored"]


def test_a_certificate_is_no_step() -> None:
    assert shown(promoted(with_answer(begun()), 2)) == []


def test_aborting_rejects_its_candidate_only() -> None:
    account = rotation_aborted(with_new_password(with_answer(begun())), "the desk is away", STAMP)
    assert {g.number: g.stage for g in account.generations if g.stage is not Stage.CURRENT} == {
        2: Stage.CANDIDATE,
        3: Stage.REJECTED,
    }
    assert account.password_rotation is None
    assert_sound(account)


@pytest.mark.parametrize("change", [lambda a: confirmed(a, ASKED), lambda a: rotation_aborted(a, "why", STAMP)])
def test_nothing_under_way_is_refused(change: object) -> None:
    with assert_refused(RefusedError, "no password rotation of mzp-1 is under way"):
        change(with_current())  # type: ignore[operator]


def test_there_must_be_a_password_to_replace() -> None:
    with assert_refused(RefusedError, "no current password"):
        rotation_begun(an_account(), STAMP)


def test_a_forged_step_is_found() -> None:
    account = without_texts(confirmed(begun(), ASKED))
    assert not list(differences(account, account.outbox))
    forged = replace(account, password_rotation=under_way(account).with_step(SET, STAMP))
    assert fold(account.outbox) != account_state(forged)
    (found,) = differences(forged, forged.outbox)
    assert found.startswith("the steps of the password rotation of mzp-1")


def test_a_roll_back_keeps_the_steps() -> None:
    account = promoted(with_new_password(confirmed(begun(), ASKED, SET)), 2)
    account = promoted(with_answer(account), 3)
    back = moving.moved(moving.restored(account, 2, STAMP), 2, Move.ROLL_BACK, STAMP, "known good")
    assert under_way(back).next is DEAD
    assert_sound(back)
