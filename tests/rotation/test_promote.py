"""Promotion and roll-back: tried first, never repeated, and refused after a concurrent change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from broker.errors import ConflictError, RefusedError, UnknownNameError, WaitingError
from broker.model.account import Account
from broker.model.changes.moving import generation_to_try
from broker.model.generation import Parts
from broker.model.stage import Stage
from broker.model.todo import TRY_TIMEOUT
from broker.model.verdict import CanaryResult, Verdict
from broker.rotation.reports import CanaryRefusedError, CanaryUnansweredError
from tests.rotation.life_cycle import Commands, Step, lived, midway
from tests.rotation.simulation import Simulation
from tests.support.accounts import MZP, an_account, assert_refused


def a_simulation() -> Simulation:
    """Return 1 previous, 2 current, 3 a candidate (a password)."""
    return midway("no request").branch()


def rolled_back() -> Simulation:
    """Return 1 current again; the roll-back displaced 2."""
    sim = midway("no request").branch()
    Commands(sim).reject(3)
    return lived(sim, [lambda c: c.roll_back(1)])


def overtaken() -> Simulation:
    """Return 4 (a certificate) made before 3 (a password) became current."""
    return lived(a_simulation(), [lambda c: c.draft(), lambda c: c.answer(3), lambda c: c.promote(3)])


def stages(sim: Simulation) -> dict[int, str]:
    return {g.number: g.stage.value for g in sim.account.generations}


UNANSWERED = (Verdict.PARTNER_DOWN, Verdict.QUOTA, Verdict.PROXY)
NOT_ACCEPTED = {
    **dict.fromkeys(UNANSWERED, CanaryUnansweredError),
    **dict.fromkeys(set(Verdict) - {*UNANSWERED, Verdict.OK}, CanaryRefusedError),
}


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.OK])
@pytest.mark.parametrize("command", ["promote", "roll back"])
def test_refused_set_stays_a_candidate(verdict: Verdict, command: str) -> None:
    sim = a_simulation()
    sim.verdict, before = verdict, stages(sim)
    with assert_refused(NOT_ACCEPTED[verdict], verdict.value):
        Commands(sim).promote(3) if command == "promote" else Commands(sim).roll_back(1)
    assert stages(sim) == before
    assert len(sim.logins) == 1
    assert sim.account.tries[-1].verdict == verdict.value


@pytest.mark.parametrize("number", [0, 3])
def test_rejected_login_stops_all_tries(number: int) -> None:
    sim = a_simulation()
    sim.verdict = Verdict.LOGIN_REJECTED
    with assert_refused(CanaryRefusedError):
        Commands(sim).promote(number)
    again: list[Step] = [lambda c: c.promote(3), lambda c: c.roll_back(1), lambda c: c.canary(2)]
    for step in again:
        with assert_refused(RefusedError, "rejected the login"):
            step(Commands(sim))
    assert len(sim.logins) == 1


def test_partners_pause_is_respected() -> None:
    sim = a_simulation()
    sim.verdict = Verdict.QUOTA
    with assert_refused(CanaryUnansweredError):
        Commands(sim).promote(3)
    with assert_refused(WaitingError):
        Commands(sim).promote(3)
    assert len(sim.logins) == 1


@pytest.mark.parametrize("number", [9, -1])
def test_missing_generation_is_unknown_name(number: int) -> None:
    for command in (Commands(a_simulation()).promote, Commands(a_simulation()).roll_back):
        with assert_refused(UnknownNameError):
            command(number)


@pytest.mark.parametrize("number", [1])
def test_non_candidate_is_refused_unsent(number: int) -> None:
    sim = a_simulation()
    with assert_refused(RefusedError, "previous"):
        Commands(sim).promote(number)
    assert sim.logins == []


@pytest.mark.parametrize("end", ["reject", "retire"])
def test_bad_rollback_is_refused_unsent(end: str) -> None:
    sim = a_simulation()
    Commands(sim).reject(3)
    if end == "retire":
        Commands(sim).retire(3)
        Commands(sim).settle()
    with assert_refused(RefusedError, "roll back", "generation 3"):
        Commands(sim).roll_back(3)
    assert sim.logins == []


def test_promoting_current_sends_nothing() -> None:
    sim = a_simulation()
    assert Commands(sim).promote(2) == 2
    assert (sim.logins, sim.writes) == ([], [])


def test_changed_is_false_if_done_before() -> None:
    def changed(number: int, *, back: bool = False) -> bool:
        rotation = sim.rotation()
        return (rotation.roll_back if back else rotation.promote)(MZP, number).changed

    sim = a_simulation()
    assert not changed(2)
    assert changed(3)
    sim.now += TRY_TIMEOUT
    assert not changed(3)
    assert not changed(0)
    assert changed(1, back=True)
    assert not changed(0, back=True)


def renewed(days: int) -> Simulation:
    """Return 2 current, and 4 a candidate with a certificate of `days`."""
    sim = a_simulation()
    Commands(sim).reject(3)
    return lived(sim, [lambda c: c.draft(), lambda c: c.answer(3, days)])


def test_an_earlier_end_needs_a_reason() -> None:
    sim = renewed(364)
    before = len(sim.logins)
    with assert_refused(RefusedError, "ends on", "before the current"):
        Commands(sim).promote(4)
    assert len(sim.logins) == before
    assert sim.rotation().promote(MZP, 4, reason="the partner cuts lifetimes").changed
    assert sim.logins[before:] == [4, 2], "the candidate and the way back: a reason does not replace the canary"
    moves = [entry.facts for entry in sim.whole_chain() if entry.what == "generation-moved"]
    assert moves[-1]["reason"] == "the partner cuts lifetimes"
    sim.assert_sound()


def test_an_end_at_the_same_time_needs_none() -> None:
    assert Commands(renewed(365)).promote(4)


def test_known_key_is_replaced_by_any_cert() -> None:
    sim = a_simulation()
    Commands(sim).reject(3)
    sim.rotation().report_compromise(MZP, "stolen", suspend=False)
    lived(sim, [lambda c: c.answer(3, 30), lambda c: c.promote(4)])
    assert sim.account.current == sim.account.generation(4)


def test_way_back_needs_same_secrets() -> None:
    sim = a_simulation()
    Commands(sim).promote(3)
    assert sim.logins == [3]  # generation 2 has the password before
    sim = overtaken().branch()
    Commands(sim).promote(4)
    assert sim.logins == [4, 3]


def test_a_superseded_password_is_not_sent() -> None:
    """To a partner, it is a rejected login, and several lock the account."""
    sim = lived(a_simulation(), [lambda c: c.promote(3)])
    sent = len(sim.logins)
    with assert_refused(RefusedError, "generation 2 of mzp-1 has an older password"):
        Commands(sim).canary(2)
    assert len(sim.logins) == sent
    sim.rotation().try_out(MZP, 2, reason="the partner asked for it")
    assert sim.logins[sent:] == [2]


def test_blocked_way_back_allows_promotion() -> None:
    sim = lived(a_simulation(), [lambda c: c.reject(3), lambda c: c.draft(), lambda c: c.answer(3)])

    def pausing(account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        return lambda: CanaryResult(Verdict.OK, wait=timedelta(hours=1))

    done = sim.rotation(canary=pausing).promote(MZP, 4)
    assert (done.generation, done.way_back) == (4, None)


def test_candidate_keeps_its_number() -> None:
    sim = overtaken()
    assert Commands(sim).promote(4) == 4
    assert sim.account.generation(4).parts.password == sim.account.generation(3).parts.password
    sim.now += TRY_TIMEOUT
    assert Commands(sim).promote(4) == 4, "the same command again"


def test_try_of_another_set_promotes_nothing() -> None:
    """A password becomes current while the canary of a certificate is away: the partner accepted another set."""
    sim = lived(a_simulation(), [lambda c: c.draft(), lambda c: c.answer(3)])

    def meanwhile() -> None:
        sim.now += TRY_TIMEOUT
        Commands(sim, by="other").promote(3)

    sim = sim.branch(at=2, meanwhile=meanwhile)
    with assert_refused(ConflictError, "generation 3", "generation 4"):
        Commands(sim).promote(4)
    assert stages(sim)[3] == "current"
    sim.now += TRY_TIMEOUT
    assert Commands(sim).promote(4) == 4, "the same command again tries it over that"


def test_changed_set_is_not_sent() -> None:
    """The other promotion ends between our look and our reservation."""
    sim = lived(a_simulation(), [lambda c: c.draft(), lambda c: c.answer(3)])
    sim = sim.branch(at=1, meanwhile=lambda: (Commands(sim).promote(3), None)[1])
    with assert_refused(ConflictError, "another set"):
        Commands(sim).promote(4)
    assert 4 not in sim.logins


def test_joined_candidates_are_tried_as_one() -> None:
    sim = lived(a_simulation(), [lambda c: c.draft(), lambda c: c.answer(3)])
    joined = sim.rotation().join(MZP, 3, 4)
    assert sim.rotation().join(MZP, 4, 3) == joined
    assert Commands(sim).promote(joined.number) == 5
    assert sim.logins == [5]
    assert stages(sim) == {1: "previous", 2: "previous", 3: "rejected", 4: "rejected", 5: "current"}


def test_rejected_candidate_is_not_replaced() -> None:
    sim = overtaken()
    Commands(sim).password("pw-9")
    Commands(sim).reject(4)
    with assert_refused(RefusedError, "generation 4", "rejected"):
        Commands(sim).promote(4)
    assert sim.account.generation(5).stage is Stage.CANDIDATE


# -- held


def test_displaced_set_needs_its_number() -> None:
    sim = rolled_back()
    sim = sim.branch()
    assert Commands(sim).promote(0) == 1
    assert (sim.logins, sim.writes) == ([], [])
    assert Commands(sim).promote(2) == 2


def test_canary_default_generation() -> None:
    sim = a_simulation()
    assert generation_to_try(sim.account).number == 3
    Commands(sim).reject(3)
    assert generation_to_try(sim.account).number == 2
    assert generation_to_try(rolled_back().account).number == 1
    with assert_refused(RefusedError, "has no candidate"):
        generation_to_try(an_account())


def test_killed_rollback_leaves_no_default() -> None:
    sim = lived(a_simulation(), [lambda c: c.promote(3)])
    sim.verdict = Verdict.PARTNER_DOWN
    with assert_refused(CanaryUnansweredError):
        Commands(sim).roll_back(1)
    assert sim.account.reuses_certificate(sim.account.candidates[-1])
    assert generation_to_try(sim.account) == sim.account.current


def test_promotion_does_not_undo_a_rollback() -> None:
    """Another machine promotes the same candidate, and a person rolls it back, all before our verdict is in."""
    sim = a_simulation()
    Commands(sim).reject(3)
    Commands(sim).draft()
    Commands(sim).answer(3)

    def meanwhile() -> None:
        sim.now += TRY_TIMEOUT
        Commands(sim, by="machine").promote(4)
        sim.now += TRY_TIMEOUT
        Commands(sim, by="person").roll_back(2)

    sim = sim.branch(at=2, meanwhile=meanwhile)
    with assert_refused(ConflictError, "roll-back", "generation 4"):
        Commands(sim).promote(4)
    assert stages(sim)[2] == "current"


# -- back


def test_lost_rollback_goes_back_once() -> None:
    """Without a number the same command again finds it done; further back takes a number."""
    sim = lived(rolled_back(), [lambda c: c.promote(2), lambda c: c.draft(), lambda c: c.answer(3)])
    lived(sim, [lambda c: c.promote(4), lambda c: c.roll_back(0)])
    assert stages(sim) == {1: "previous", 2: "current", 3: "rejected", 4: "previous"}
    assert Commands(sim).roll_back(0) == 2
    assert Commands(sim).roll_back(1) == 1


def test_joined_rollback_is_found_done() -> None:
    sim = lived(a_simulation(), [lambda c: c.promote(3)])
    assert Commands(sim).roll_back(1) == 4
    written = len(sim.writes)
    assert Commands(sim).roll_back(1) == 4
    assert len(sim.writes) == written


def test_rollback_displaces_only_what_it_saw() -> None:
    """Generation 2 was to be displaced; while the canary was away 4, which shares its password, became current."""
    sim = lived(a_simulation(), [lambda c: c.reject(3), lambda c: c.draft(), lambda c: c.answer(3)])

    def meanwhile() -> None:
        sim.now += TRY_TIMEOUT
        Commands(sim, by="other").promote(4)

    sim = sim.branch(at=2, meanwhile=meanwhile)
    with assert_refused(ConflictError, "generation 4"):
        Commands(sim).roll_back(1)
    assert stages(sim)[4] == "current"


def test_rollback_ignores_the_clock() -> None:
    sim = lived(
        Simulation(), [lambda c: c.open(), lambda c: c.password("pw"), lambda c: c.draft(), lambda c: c.answer(1)]
    )
    lived(sim, [lambda c: c.promote(1), lambda c: c.draft(), lambda c: c.answer(2)])
    sim.now += timedelta(days=60)
    lived(sim, [lambda c: c.promote(2)])
    sim.now -= timedelta(days=60)
    lived(sim, [lambda c: c.draft(), lambda c: c.answer(3), lambda c: c.promote(3)])
    assert Commands(sim).roll_back(0) == 2
    assert Commands(sim).roll_back(0) == 2, "the same command again"


def test_no_rollback_before_first_promotion() -> None:
    sim = lived(Simulation(), [lambda c: c.open()])
    with assert_refused(RefusedError, "no previous generation"):
        Commands(sim).roll_back(0)


def test_untried_rollback_needs_a_reason() -> None:
    sim = a_simulation()
    sim.rotation().roll_back(MZP, 1, untried_because="the partner is down")
    assert sim.logins == []
    assert sim.whole_chain()[-1].facts["reason"] == "the partner is down"


def test_refused_expired_set_says_so() -> None:
    sim = rolled_back()
    sim.now += timedelta(days=400)
    sim.verdict = Verdict.CERTIFICATE_REJECTED
    current = sim.account.current
    assert current
    end = sim.account.certificate(current.parts.certificate).not_after
    assert sim.rotation().try_out(MZP, current.number).expired == end
