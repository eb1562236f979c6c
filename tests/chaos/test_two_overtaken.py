"""One command waits in its narrowest window while others run: it must report what they did.

Real processes, one order: the races that `test_two_commands` hits by chance happen here every time.
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


def overtaken(arena: Arena, state: str, slow: Act, *others: Act, waits: str) -> tuple[int, str]:
    """Return how `slow` ended, overtaken by `others`; all of it must be explained."""
    race = arena.overtaken(arena.begun(state), slow, *others, waits=waits)
    arena.judged(race)
    return race.operations[0].code, race.operations[0].said


@pytest.mark.parametrize("waits", ["write data/keys/ 1", "read keys/ 1", "read keys/ 2", "read keys/ 3", WRITES + " 1"])
def test_draft_reports_its_cancelled_request(arena: Arena, waits: str) -> None:
    code, said = overtaken(arena, "added", NEW, NEW, CANCEL, waits=waits)
    assert (code, "cancelled meanwhile" in said) == (8, True)


def test_overtaken_draft_shows_winning_csr(arena: Arena) -> None:
    assert overtaken(arena, "added", NEW, NEW, waits="write data/keys/ 1")[0] == 0


@pytest.mark.parametrize("waits", ["write data/keys/ 1", "read keys/ 1", "read keys/ 2", "read keys/ 3", WRITES + " 1"])
def test_new_key_yields_to_the_same_key(arena: Arena, waits: str) -> None:
    assert overtaken(arena, "reusable", NEW, Act("csr new", {"reuse-key": True}), waits=waits)[0] == 0


@pytest.mark.parametrize("waits", [READS + " 2", WRITES + " 1"])
def test_answered_request_is_not_superseded(arena: Arena, waits: str) -> None:
    imported = Act("cert import", {"request": 2})
    code, said = overtaken(arena, "again", Act("csr new", {"supersede": True}), imported, waits=waits)
    assert (code, "request 2 of acme was answered meanwhile" in said) == (8, True)


@pytest.mark.parametrize("waits", [READS + " 2", WRITES + " 1"])
def test_mail_for_superseded_is_refused(arena: Arena, waits: str) -> None:
    submit = Act("csr submit", {"reference": "mail-1"})
    code, said = overtaken(arena, "requested", submit, Act("csr new", {"supersede": True}), waits=waits)
    assert (code, "superseded" in said) == (6, True)


def test_removed_application_stays_removed(arena: Arena) -> None:
    setting = Act("app set", {"application": "reporting", "client_id": "x"})
    code, _ = overtaken(arena, "added", setting, Act("app remove", {"application": "reporting"}), waits=WRITES + " 1")
    assert code == 2


def test_second_client_id_is_a_conflict(arena: Arena) -> None:
    first, second = (Act("app add", {"application": "tours", "client_id": f"id-{n}"}) for n in (1, 2))
    code, said = overtaken(arena, "added", first, second, waits=WRITES + " 1")
    assert (code, "another client_id" in said) == (8, True)


def test_overtaken_password_names_the_newer(arena: Arena) -> None:
    older, newer = (Act("password set", {"password": text}) for text in ("older", "newer"))
    code, said = overtaken(arena, "promoted", older, newer, waits=WRITES + " 1")
    assert (code, "got password 3 meanwhile" in said, "evidence show acme" in said) == (8, True, True)


@pytest.mark.parametrize("waits", [WRITES + f" {n}" for n in range(1, 6)])
def test_overtaken_promotion_is_explained(arena: Arena, waits: str) -> None:
    password = Act("password set", {"password": PASSWORD, "good": True})
    code, _ = overtaken(arena, "renewed", Act("rotation promote"), password, Act("rotation promote"), waits=waits)
    assert code in (0, 6, 8)


@pytest.mark.parametrize("waits", [WRITES + f" {n}" for n in range(1, 5)])
def test_overtaken_roll_back_is_explained(arena: Arena, waits: str) -> None:
    others = [Act("rotation rollback", {"forced": True}), Act("rotation promote", {"generation": 2})]
    assert overtaken(arena, "rotated", Act("rotation rollback"), *others, waits=waits)[0] in (0, 6, 8)
    retire = Act("rotation retire", {"generation": 1, "forced": True})
    assert overtaken(arena, "rotated", Act("rotation rollback"), retire, waits=waits)[0] in (0, 6, 8)


def test_concurrent_settling_happens_once(arena: Arena) -> None:
    for seed in range(3):
        race = arena.begun("added")
        arena.race(race, Act("app add", {"application": "tours"}), dies_after=["data/accounts/"])
        assert race.operations == []
        race.before = arena.stored(race)
        arena.race(race, *[Act("app add", {"application": "reporting"})] * 4, seed=seed)
        assert race.codes == [0, 0, 0, 0]
        arena.judged(race)
