"""The smaller verbs: open, password, draft, submit, close, retire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest

from broker.copies import replace
from broker.errors import ConflictError, InputError, RefusedError, UnknownNameError, WaitingError
from broker.model.account import Account, Contacts
from broker.model.chain import Head
from broker.model.changes.registering import application_removed, application_set
from broker.model.clock import Stamp
from broker.model.generation import Closed, Parts, SecretRef, SigningRequest, Submission
from broker.model.secret import Secret
from broker.model.stage import Stage
from broker.model.verdict import CanaryResult, Verdict
from broker.rotation.amend import amend
from broker.rotation.registry import SLOTS
from broker.rotation.reports import CanaryRefusedError
from tests.rotation.life_cycle import Commands, Step, midway
from tests.rotation.simulation import Fault, Killed, Simulation, _Keys
from tests.support.accounts import BY, MZP, PLANTED, an_account, assert_refused


def a_simulation(begun: str = "open request") -> Simulation:
    return midway(begun).branch()


# -- open


def test_adding_twice_returns_the_stored() -> None:
    sim = a_simulation()
    Commands(sim).open()
    assert len(sim.account.generations) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"login": "MZP2"},
        {"base_url": "https://elsewhere.test"},
        {"profile": "visa"},
        {"environment": "production"},
        {"contacts": Contacts()},
    ],
)
def test_other_account_of_name_is_conflict(other: dict[str, Any]) -> None:
    sim = a_simulation()
    before = sim.account
    with assert_refused(ConflictError, "MZP1"):
        sim.registry().add_account(replace(an_account(**other), outbox=(), head=Head()))
    assert sim.account == before


# -- password


def test_password_is_in_no_document() -> None:
    sim = a_simulation()
    Commands(sim).password(PLANTED)
    assert sim.account.password
    assert sim.password(sim.account.password) == PLANTED
    assert PLANTED not in repr((sim.documents, sim.evidence, sim.account))


@pytest.mark.parametrize("kills", [1, 2, 5])
def test_slots_of_killed_runs_are_destroyed(kills: int) -> None:
    sim = a_simulation()
    for taken in range(kills):  # each finds the slots of those before it taken, stores its own, and names none
        sim.at, sim.fault = len(sim.writes) + taken + 2, Fault.KILLED_BEFORE
        with pytest.raises(Killed):
            Commands(sim).password("pw-x")
        sim.assert_sound()
    sim.fault = None
    Commands(sim).password("pw-last")
    Commands(sim).settle()
    assert sorted(sim.secret(s) for s in sim.living_secrets()) == ["pw-1", "pw-2", "pw-last"]


def test_all_slots_taken_stores_nothing() -> None:
    sim = a_simulation()
    first = sim.account.password + 1
    for slot in range(first, first + SLOTS):
        sim.create("password", SecretRef(f"password:{slot}"), "by nobody")
    with assert_refused(ConflictError, "password numbers"):
        Commands(sim).password("pw-x")


def test_overtaken_password_is_destroyed() -> None:
    sim = a_simulation()
    sim.at, sim.meanwhile = 2, lambda: Commands(sim).password("pw-winner")
    with assert_refused(ConflictError, "password 4"):
        Commands(sim).password("pw-loser")
    Commands(sim).settle()
    assert "pw-loser" not in {sim.secret(s) for s in sim.living_secrets()}
    sim.assert_sound()


# -- draft


def test_same_csr_until_request_is_closed() -> None:
    sim = a_simulation("no request")
    shown = Commands(sim).draft()
    assert Commands(sim).draft() == shown
    assert len([w for w in sim.writes if w == "key"]) == 1


@pytest.mark.parametrize("write", [1, 2])
def test_concurrent_drafts_share_a_key(write: int) -> None:
    sim = a_simulation("no request").branch(at=write)
    others: list[str] = []
    sim.meanwhile = lambda: others.append(Commands(sim).draft())
    assert [Commands(sim).draft()] == others
    assert len(sim.account.requests) == 3
    sim.assert_sound()


class Unlike(_Keys):
    """Signs differently each time, as ECDSA or another release of the broker would."""

    turns = count()

    def sign_request(self, *of: Any) -> str:
        return f"{super().sign_request(*of)}, the {next(self.turns)}."


def test_concurrent_drafts_show_stored_csr() -> None:
    sim = a_simulation("no request").branch(at=2)

    def shown() -> SigningRequest:
        return sim.rotation(keys=Unlike(sim)).draft(MZP)

    sim.meanwhile = shown
    assert shown() == sim.account.open_request


@pytest.mark.parametrize("write", [1, 2])
def test_cancelled_draft_shows_no_csr(write: int) -> None:
    sim = a_simulation("no request").branch(at=write)

    def meanwhile() -> None:
        Commands(sim).draft()
        Commands(sim).close()

    sim.meanwhile = meanwhile
    with assert_refused(ConflictError, "signing request 3", "cancelled"):
        Commands(sim).draft()
    assert "by key mzp-1/4" in Commands(sim).draft()
    sim.assert_sound()


def test_destroyed_key_is_not_made_again() -> None:
    """The slot stays taken, so the sleeper finds nothing to adopt, and stores nothing."""
    sim = a_simulation("no request").branch(at=1)

    def meanwhile() -> None:
        Commands(sim).draft()
        Commands(sim).close()
        Commands(sim).settle()

    sim.meanwhile = meanwhile
    with assert_refused(ConflictError, "signing request 3", "cancelled"):
        Commands(sim).draft()
    sim.assert_sound()


# -- submit and close


def test_nothing_open_nothing_submitted() -> None:
    with assert_refused(RefusedError, "answered"):
        Commands(a_simulation("no request")).submit()


def test_sent_before_drafted_is_refused() -> None:
    sim = a_simulation()
    sent = Submission(sim.now - timedelta(days=300), "hand")
    with assert_refused(InputError, "drafted"):
        sim.rotation().submit(MZP, 3, sent)
    assert sim.writes == []


def test_a_request_is_closed() -> None:
    sim = a_simulation()
    Commands(sim).close(3)
    assert sim.account.request(3).closed is Closed.CANCELLED


def test_answered_request_is_not_closed() -> None:
    with assert_refused(ConflictError, "answered"):
        Commands(a_simulation()).close(1)
    with assert_refused(UnknownNameError):
        Commands(a_simulation()).close(9)


# -- retire


def test_straggler_blocks_retirement() -> None:
    sim = a_simulation()
    sim.held = frozenset({"billing", "app"})
    with assert_refused(WaitingError, "app, billing"):
        Commands(sim).retire(1)
    assert sim.writes == []
    forced = partial(sim.rotation().retire, MZP, 1)
    assert forced(reason="gone for good")
    assert sim.account.generation(1).stage is Stage.RETIRED
    assert not forced()  # already retired, though still held


@pytest.mark.parametrize("number", [2, 3])
def test_stage_is_refused_before_stragglers(number: int) -> None:
    sim = a_simulation()
    sim.held = frozenset({"billing"})
    with assert_refused(RefusedError, f"generation {number}"):
        Commands(sim).retire(number)


def test_services_are_waited_for_before_counting() -> None:
    """For seconds a service may hand out what was current, and record that."""
    sim = a_simulation()
    order: list[object] = []

    def counted(*_: object) -> frozenset[str]:
        order.append("counted")
        return frozenset()

    since = sim.account.generation(1).since
    assert sim.rotation(stragglers=counted, wait_for_services=order.append).retire(MZP, 1)
    assert order == [since, "counted"]


def test_current_again_is_not_retired() -> None:
    sim = a_simulation()
    current = sim.account.current
    assert current

    def counted(*_: object) -> frozenset[str]:  # nobody then; and then others roll back, hand it out, and go on
        Commands(sim).roll_back(1)
        Commands(sim).promote(current.number)
        return frozenset()

    with assert_refused(ConflictError, "generation 1"):
        sim.rotation(stragglers=counted).retire(MZP, 1)
    assert sim.account.generation(1).stage is Stage.PREVIOUS


# -- canary


def test_a_retired_set_is_not_tried() -> None:
    sim = a_simulation()
    Commands(sim).retire(1)
    with assert_refused(RefusedError, "retired"):
        Commands(sim).canary(1)
    assert sim.logins == []


def test_breaker_trips_after_a_kill() -> None:
    sim = a_simulation()
    sim.at, sim.fault, sim.verdict = 2, Fault.KILLED_BEFORE, Verdict.LOGIN_REJECTED
    with pytest.raises(Killed):
        Commands(sim).promote(3)
    assert sim.account.tries[-1].verdict == ""
    sim.now += timedelta(minutes=3)
    with assert_refused(CanaryRefusedError):
        Commands(sim).promote(3)
    assert sim.account.breaker
    assert len(sim.logins) == 2


def rejected_client(sim: Simulation, meanwhile: Step) -> None:
    """Try generation 2 for `fleet`; the partner knows no such client_id, and `meanwhile` comes before its answer."""

    def canary(account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        def send() -> CanaryResult:
            meanwhile(Commands(sim))
            return CanaryResult(Verdict.CLIENT_REJECTED, application=account.application("fleet"))

        return send

    sim.rotation(canary=canary).try_out(MZP, 2)


def test_rejected_client_id_marks_one_app() -> None:
    sim = a_simulation()
    Commands(sim).application()
    rejected_client(sim, lambda c: None)
    assert sim.account.application("fleet").rejected_at
    assert not sim.account.breaker


def test_new_client_id_is_not_marked() -> None:
    sim = a_simulation()
    Commands(sim).application()

    def renamed(account: Account) -> Account:
        stamp = Stamp(sim.now, BY)
        return application_set(application_removed(account, "fleet", stamp), "fleet", "another", stamp)

    rejected_client(sim, lambda c: amend(sim, MZP, renamed))
    assert not sim.account.application("fleet").rejected_at


def wrong_clock() -> datetime:
    raise RefusedError("the clock is wrong")


def test_a_wrong_clock_stores_no_key() -> None:
    sim = a_simulation("no request")
    with assert_refused(RefusedError, "clock is wrong"):
        replace(sim.rotation(), clock=wrong_clock).draft(MZP)
    assert sim.writes == []


def test_a_wrong_clock_stores_no_password() -> None:
    sim = a_simulation()
    with assert_refused(RefusedError, "clock is wrong"):
        replace(sim.registry(), clock=wrong_clock).set_secret(MZP, Secret("new"))
    assert sim.writes == []


def test_a_verdict_is_stored_by_any_clock() -> None:
    """Else the breaker stays closed after a rejected login."""
    sim = a_simulation()
    sim.verdict = Verdict.LOGIN_REJECTED
    times = iter([sim.now])

    def goes_wrong() -> datetime:
        return next(times, None) or wrong_clock()

    replace(sim.rotation(), clock=goes_wrong).try_out(MZP, 2)
    assert sim.account.breaker
    assert sim.account.breaker.at == sim.now


def test_what_fails_on_our_side_is_no_try() -> None:
    sim = a_simulation()

    def canary(account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        raise RefusedError("the password is destroyed")

    with assert_refused(RefusedError, "destroyed"):
        sim.rotation(canary=canary).try_out(MZP, 2)
    assert sim.writes == []


def in_use() -> list[tuple[Simulation, str]]:
    held = a_simulation("no request")
    held.held = frozenset({"reader (lease l1)"})
    return [
        (a_simulation(), "signing request 3 is open"),
        (a_simulation("no request"), "generation"),
        (held, "held by reader (lease l1)"),
    ]


@pytest.mark.parametrize(("sim", "why"), in_use())
def test_account_in_use_is_removed_by_force_only(sim: Simulation, why: str) -> None:
    before = sim.account
    with assert_refused(WaitingError, "is still in use", why):
        sim.rotation().remove(MZP)
    assert sim.account == before
    assert sim.rotation().remove(MZP, "contract ended")
    assert not sim.rotation().remove(MZP, "again")
    assert sim.account.removed
    for use in (lambda: sim.rotation().draft(MZP), lambda: sim.registry().suspend(MZP, "x")):
        with assert_refused(RefusedError, "was removed", "contract ended"):
            use()


def test_unused_account_is_removed_without_force() -> None:
    sim = Simulation()
    sim.registry().add_account(an_account())
    assert sim.rotation().remove(MZP)
    with assert_refused(RefusedError, "was removed"):
        sim.registry().add_account(an_account())
