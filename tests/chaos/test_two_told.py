"""One command waits in its narrowest window while others happen whole: it must be told what they did.

Real processes, one order: what the races of `test_two_commands` meet by chance is met here every time.
"""

from __future__ import annotations

import pytest

from tests.chaos.race_histories import Act, Arena, arena
from tests.support.system import PASSWORD

__all__ = ["arena"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NEW = Act("csr new")
CANCEL = Act("csr cancel")
READS, WRITES = "read accounts/", "write data/accounts/"


def told(arena: Arena, state: str, slow: Act, *others: Act, waits: str) -> tuple[int, str]:
    """Return how `slow` ended, overtaken by `others`; all of it must be explained."""
    race = arena.overtaken(arena.begun(state), slow, *others, waits=waits)
    arena.judged(race)
    return race.operations[0].code, race.operations[0].said


@pytest.mark.parametrize("waits", ["write data/keys/ 1", "read keys/ 1", "read keys/ 2", "read keys/ 3", WRITES + " 1"])
def test_a_draft_overtaken_by_a_whole_life_of_its_request_says_what_became_of_it(arena: Arena, waits: str) -> None:
    code, said = told(arena, "added", NEW, NEW, CANCEL, waits=waits)
    assert (code, "cancelled meanwhile" in said) == (8, True)


def test_a_draft_overtaken_by_another_shows_the_winners_csr(arena: Arena) -> None:
    assert told(arena, "added", NEW, NEW, waits="write data/keys/ 1")[0] == 0


@pytest.mark.parametrize("waits", [READS + " 2", WRITES + " 1"])
def test_what_was_answered_meanwhile_is_not_superseded(arena: Arena, waits: str) -> None:
    imported = Act("cert import", {"request": 2})
    code, said = told(arena, "again", Act("csr new", {"supersede": True}), imported, waits=waits)
    assert (code, "request 2 of acme was answered meanwhile" in said) == (8, True)


@pytest.mark.parametrize("waits", [READS + " 2", WRITES + " 1"])
def test_a_mail_for_a_superseded_request_starts_no_clock_of_the_next(arena: Arena, waits: str) -> None:
    submit = Act("csr submit", {"reference": "mail-1"})
    code, said = told(arena, "requested", submit, Act("csr new", {"supersede": True}), waits=waits)
    assert (code, "superseded" in said) == (6, True)


def test_an_application_removed_meanwhile_is_not_brought_back_by_a_client_id(arena: Arena) -> None:
    setting = Act("app set", {"application": "reporting", "client_id": "x"})
    code, _ = told(arena, "added", setting, Act("app remove", {"application": "reporting"}), waits=WRITES + " 1")
    assert code == 2


def test_of_two_client_ids_for_one_new_application_the_second_is_a_conflict(arena: Arena) -> None:
    first, second = (Act("app add", {"application": "tours", "client_id": f"id-{n}"}) for n in (1, 2))
    code, said = told(arena, "added", first, second, waits=WRITES + " 1")
    assert (code, "another client_id" in said) == (8, True)


def test_a_password_overtaken_by_a_newer_one_names_it(arena: Arena) -> None:
    older, newer = (Act("password set", {"password": text}) for text in ("older", "newer"))
    code, said = told(arena, "promoted", older, newer, waits=WRITES + " 1")
    assert (code, "got password 3 meanwhile" in said, "evidence show acme" in said) == (8, True, True)


@pytest.mark.parametrize("waits", [WRITES + f" {n}" for n in range(1, 6)])
def test_a_promotion_overtaken_by_another_password_and_promotion_is_explained(arena: Arena, waits: str) -> None:
    password = Act("password set", {"password": PASSWORD, "good": True})
    code, _ = told(arena, "renewed", Act("rotation promote"), password, Act("rotation promote"), waits=waits)
    assert code in (0, 6, 8)


@pytest.mark.parametrize("waits", [WRITES + f" {n}" for n in range(1, 5)])
def test_a_roll_back_overtaken_by_a_promotion_or_a_retirement_is_explained(arena: Arena, waits: str) -> None:
    others = [Act("rotation rollback", {"forced": True}), Act("rotation promote", {"generation": 2})]
    assert told(arena, "rotated", Act("rotation rollback"), *others, waits=waits)[0] in (0, 6, 8)
    retire = Act("rotation retire", {"generation": 1})
    assert told(arena, "rotated", Act("rotation rollback"), retire, waits=waits)[0] in (0, 6, 8)


def test_settling_what_a_killed_command_left_two_at_once_do_it_once(arena: Arena) -> None:
    for seed in range(3):
        race = arena.begun("added")
        arena.race(race, Act("app add", {"application": "tours"}), dies_after=["data/accounts/"])
        assert race.operations == []
        race.before = arena.stored(race)
        arena.race(race, *[Act("app add", {"application": "reporting"})] * 4, seed=seed)
        assert race.codes == [0, 0, 0, 0]
        arena.judged(race)
