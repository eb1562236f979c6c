"""The table of moves, cell by cell."""

from __future__ import annotations

import itertools

import pytest

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.changes import moving
from broker.model.stage import MOVES, Move, Stage
from tests.support.accounts import (
    STAMP,
    assert_refused,
    assert_sound,
    tried,
    with_answer,
    with_current,
    with_rolled_back,
)

ALLOWED = {
    (Stage.CANDIDATE, Move.PROMOTE): Stage.CURRENT,
    (Stage.CANDIDATE, Move.REJECT): Stage.REJECTED,
    (Stage.PREVIOUS, Move.ROLL_BACK): Stage.CURRENT,
    (Stage.PREVIOUS, Move.RETIRE): Stage.RETIRED,
    (Stage.REJECTED, Move.RETIRE): Stage.RETIRED,
}


def standing_at(stage: Stage) -> tuple[Account, int]:
    """Return an account with a generation at `stage`, and its number."""
    candidate = tried(with_answer(with_current()), 2)
    promoted = tried(moving.moved(candidate, 2, Move.PROMOTE, STAMP), 1)
    return {
        Stage.CANDIDATE: (candidate, 2),
        Stage.CURRENT: (candidate, 1),
        Stage.PREVIOUS: (promoted, 1),
        Stage.REJECTED: (moving.moved(candidate, 2, Move.REJECT, STAMP), 2),
        Stage.RETIRED: (moving.moved(promoted, 1, Move.RETIRE, STAMP), 1),
    }[stage]


@pytest.mark.parametrize(("stage", "move"), list(itertools.product(Stage, Move)))
def test_every_stage_meets_every_move(stage: Stage, move: Move) -> None:
    """A move is in the table, or done already, or refused in words that name the stage."""
    account, number = standing_at(stage)
    if MOVES[move].end is stage:
        assert moving.moved(account, number, move, STAMP) is account
    elif end := ALLOWED.get((stage, move)):
        after = moving.moved(account, number, move, STAMP)
        assert after.generation(number).stage is end
        assert_sound(after)
    else:
        with assert_refused(RefusedError, f"generation {number}", stage.value):
            moving.moved(account, number, move, STAMP)


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_says_what_it_means(stage: Stage) -> None:
    assert stage.meaning
    assert stage.living is (stage is not Stage.RETIRED)
    assert stage.deliverable is (stage in (Stage.CURRENT, Stage.PREVIOUS))


def test_only_two_moves_make_current() -> None:
    assert {m for m in Move if MOVES[m].end is Stage.CURRENT} == {Move.PROMOTE, Move.ROLL_BACK}
    assert {m for m in Move if MOVES[m].displaced} == {Move.PROMOTE, Move.ROLL_BACK}


def test_nothing_leaves_retirement() -> None:
    assert not any(Stage.RETIRED in row.starts for row in MOVES.values())


def test_ordinary_candidate_cannot_roll_back() -> None:
    with assert_refused(RefusedError, "roll back", "candidate"):
        moving.moved(with_answer(with_current()), 2, Move.ROLL_BACK, STAMP)


def test_displaced_set_waits_for_promotion() -> None:
    account = with_rolled_back()
    assert account.generation(2).stage is Stage.PREVIOUS
    assert account.rolled_back(account.generation(2))
    assert moving.moved(account, 2, Move.PROMOTE, STAMP).generation(2).stage is Stage.CURRENT
