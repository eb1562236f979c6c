"""Promotion and roll-back: tried first, joined where needed, never twice and never past what others did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from broker.errors import ConflictError, RefusedError, UnknownNameError, WaitingError
from broker.model.account import Account
from broker.model.generation import Generation
from broker.model.obstacle import TRY_TAKES
from broker.model.stage import Stage
from broker.partners.verdict import Verdict
from broker.rotation.canary import CanaryRefusedError, CanaryUnansweredError
from broker.rotation.ports import Answer
from broker.rotation.promote import chosen_candidate, promote, roll_back, set_to_try
from tests.rotation.life import Commands, Step, lived, midway
from tests.rotation.world import World
from tests.support.accounts import BY, MZP, an_account, assert_refused


def a_world() -> World:
    """Return 1 previous, 2 current, 3 a candidate (a password)."""
    return midway("no request").branch()


def rolled_back() -> World:
    """Return 1 current again, 2 held."""
    world = midway("no request").branch()
    Commands(world).reject(3)
    return lived(world, [lambda c: c.roll_back(1)])


def overtaken() -> World:
    """Return 4 (a certificate) made before 3 (a password) became current."""
    return lived(a_world(), [lambda c: c.draft(), lambda c: c.answer(3), lambda c: c.promote(3)])


def stages(world: World) -> dict[int, str]:
    return {g.number: g.stage.value for g in world.account.generations}


NOT_ACCEPTED = {
    **dict.fromkeys([Verdict.PARTNER_DOWN, Verdict.QUOTA], CanaryUnansweredError),
    **dict.fromkeys(set(Verdict) - {Verdict.PARTNER_DOWN, Verdict.QUOTA, Verdict.OK}, CanaryRefusedError),
}


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.OK])
@pytest.mark.parametrize("command", ["promote", "roll back"])
def test_what_the_partner_does_not_accept_becomes_nothing(verdict: Verdict, command: str) -> None:
    world = a_world()
    world.verdict, before = verdict, stages(world)
    with assert_refused(NOT_ACCEPTED[verdict], verdict.value):
        Commands(world).promote(3) if command == "promote" else Commands(world).roll_back(1)
    assert stages(world) == before
    assert len(world.logins) == 1
    assert world.account.tries[-1].verdict == verdict.value


@pytest.mark.parametrize("number", [0, 3])
def test_after_a_rejected_login_no_command_sends_another(number: int) -> None:
    world = a_world()
    world.verdict = Verdict.LOGIN_REJECTED
    with assert_refused(CanaryRefusedError):
        Commands(world).promote(number)
    again: list[Step] = [lambda c: c.promote(3), lambda c: c.roll_back(1), lambda c: c.canary(2)]
    for step in again:
        with assert_refused(RefusedError, "rejected the login"):
            step(Commands(world))
    assert len(world.logins) == 1


def test_the_partners_wish_to_be_left_alone_is_kept() -> None:
    world = a_world()
    world.verdict = Verdict.QUOTA
    with assert_refused(CanaryUnansweredError):
        Commands(world).promote(3)
    with assert_refused(WaitingError):
        Commands(world).promote(3)
    assert len(world.logins) == 1


@pytest.mark.parametrize("number", [9, -1])
def test_a_generation_that_is_not_there_is_an_unknown_name(number: int) -> None:
    for command in (Commands(a_world()).promote, Commands(a_world()).roll_back):
        with assert_refused(UnknownNameError):
            command(number)


@pytest.mark.parametrize("number", [1])
def test_what_is_no_candidate_is_refused_before_anything_is_sent(number: int) -> None:
    world = a_world()
    with assert_refused(RefusedError, "previous"):
        Commands(world).promote(number)
    assert world.logins == []


@pytest.mark.parametrize("end", ["reject", "retire"])
def test_what_is_no_way_back_is_refused_before_anything_is_sent(end: str) -> None:
    world = a_world()
    Commands(world).reject(3)
    if end == "retire":
        Commands(world).retire(3)
        Commands(world).settle()
    with assert_refused(RefusedError, "roll back", "generation 3"):
        Commands(world).roll_back(3)
    assert world.logins == []


def test_promoting_what_is_current_sends_nothing() -> None:
    world = a_world()
    assert Commands(world).promote(2) == 2
    assert (world.logins, world.writes) == ([], [])


def test_what_was_done_already_is_told_apart_from_what_was_done() -> None:
    def changed(number: int, *, back: bool = False) -> bool:
        command = roll_back if back else promote
        return command(MZP, number, accounts=world, canary=world.canary, clock=world.clock, by=BY).changed

    world = a_world()
    assert not changed(2)
    assert changed(3)
    world.now += TRY_TAKES
    assert not changed(3)
    assert not changed(0)
    assert changed(1, back=True)
    assert not changed(0, back=True)


def test_the_way_back_is_tried_only_with_the_password_that_was_just_accepted() -> None:
    world = a_world()
    Commands(world).promote(3)
    assert world.logins == [3]  # generation 2 has the password before
    world = overtaken().branch()
    Commands(world).promote(4)
    assert world.logins == [5, 3]


def test_a_way_back_that_may_not_be_tried_now_does_not_hold_up_the_promotion() -> None:
    world = lived(a_world(), [lambda c: c.reject(3), lambda c: c.draft(), lambda c: c.answer(3)])

    def pausing(account: Account, generation: Generation) -> Callable[[], Answer]:
        return lambda: Answer(Verdict.OK, wait=timedelta(hours=1))

    done = promote(MZP, 4, accounts=world, canary=pausing, clock=world.clock, by=BY)
    assert (done.number, done.way_back) == (4, None)


def test_an_overtaken_candidate_is_joined_and_its_old_number_still_names_it() -> None:
    world = overtaken()
    assert Commands(world).promote(4) == 5
    world.now += TRY_TAKES
    assert Commands(world).promote(4) == 5, "the same command again"
    assert stages(world)[4] == "rejected"


def test_a_candidate_that_a_person_rejected_is_not_replaced_by_another() -> None:
    world = overtaken()
    Commands(world).password("pw-9")
    Commands(world).reject(4)
    with assert_refused(RefusedError, "generation 4", "rejected"):
        Commands(world).promote(4)
    assert world.account.generation(5).stage is Stage.CANDIDATE


# -- held


def test_no_machine_promotes_what_a_roll_back_displaced() -> None:
    world = rolled_back()
    with assert_refused(RefusedError, "2"):
        Commands(world).promote(0)
    assert Commands(world).promote(2) == 2


def test_where_none_is_named_a_canary_is_about_what_would_be_promoted_else_the_current_one() -> None:
    world = a_world()
    assert set_to_try(world.account).number == 3
    Commands(world).reject(3)
    assert set_to_try(world.account).number == 2
    assert set_to_try(rolled_back().account).number == 1
    with assert_refused(RefusedError, "has no set yet"):
        set_to_try(an_account())


def test_no_machine_promotes_what_a_roll_back_that_was_killed_had_made() -> None:
    world = lived(a_world(), [lambda c: c.promote(3)])
    world.verdict = Verdict.PARTNER_DOWN
    with assert_refused(CanaryUnansweredError):
        Commands(world).roll_back(1)
    assert world.account.candidates[-1].restores == 1
    with assert_refused(RefusedError):
        chosen_candidate(world.account)


def test_a_promotion_does_not_bring_back_what_was_rolled_back_while_its_canary_was_away() -> None:
    """Another machine promotes the same candidate, and a person rolls it back, all before our verdict is in."""
    world = a_world()
    Commands(world).reject(3)
    Commands(world).draft()
    Commands(world).answer(3)

    def meanwhile() -> None:
        world.now += TRY_TAKES
        Commands(world, by="machine").promote(4)
        world.now += TRY_TAKES
        Commands(world, by="person").roll_back(2)

    world = world.branch(at=2, meanwhile=meanwhile)
    with assert_refused(ConflictError, "roll-back", "generation 4"):
        Commands(world).promote(4)
    assert stages(world)[2] == "current"


# -- back


def test_a_roll_back_whose_answer_was_lost_does_not_go_back_twice() -> None:
    """Without a number the same command again finds it done; further back takes a number."""
    world = lived(rolled_back(), [lambda c: c.promote(2), lambda c: c.draft(), lambda c: c.answer(3)])
    lived(world, [lambda c: c.promote(4), lambda c: c.roll_back(0)])
    assert stages(world) == {1: "previous", 2: "current", 3: "rejected", 4: "candidate"}
    assert Commands(world).roll_back(0) == 2
    assert Commands(world).roll_back(1) == 1


def test_a_roll_back_that_was_joined_is_found_done_too() -> None:
    world = lived(a_world(), [lambda c: c.promote(3)])
    assert Commands(world).roll_back(1) == 4
    written = len(world.writes)
    assert Commands(world).roll_back(1) == 4
    assert len(world.writes) == written


def test_a_roll_back_does_not_displace_what_nobody_meant() -> None:
    """Generation 2 was to be displaced; while the canary was away 4, which shares its password, became current."""
    world = lived(a_world(), [lambda c: c.reject(3), lambda c: c.draft(), lambda c: c.answer(3)])

    def meanwhile() -> None:
        world.now += TRY_TAKES
        Commands(world, by="other").promote(4)

    world = world.branch(at=2, meanwhile=meanwhile)
    with assert_refused(ConflictError, "generation 4"):
        Commands(world).roll_back(1)
    assert stages(world)[4] == "current"


def test_a_roll_back_goes_to_the_newest_one_though_the_clock_was_set_back() -> None:
    world = lived(World(), [lambda c: c.open(), lambda c: c.password("pw"), lambda c: c.draft(), lambda c: c.answer(1)])
    lived(world, [lambda c: c.promote(1), lambda c: c.draft(), lambda c: c.answer(2)])
    world.now += timedelta(days=60)
    lived(world, [lambda c: c.promote(2)])
    world.now -= timedelta(days=60)
    lived(world, [lambda c: c.draft(), lambda c: c.answer(3), lambda c: c.promote(3)])
    assert Commands(world).roll_back(0) == 2
    assert Commands(world).roll_back(0) == 2, "the same command again"


def test_there_is_no_way_back_before_the_first_promotion() -> None:
    world = lived(World(), [lambda c: c.open()])
    with assert_refused(RefusedError, "no previous generation"):
        Commands(world).roll_back(0)


def test_a_person_may_go_back_untried_and_says_why() -> None:
    world = a_world()
    roll_back(MZP, 1, accounts=world, canary=None, clock=world.clock, by=BY, reason="the partner is down")
    assert world.logins == []
    assert world.told()[-1].facts["reason"] == "the partner is down"
