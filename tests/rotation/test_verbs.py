"""The smaller verbs: open, password, draft, submit, close, retire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest

from broker.errors import ConflictError, InputError, RefusedError, UnknownNameError, WaitingError
from broker.model.account import Account, Contacts
from broker.model.changes import application_set
from broker.model.evidence import Head
from broker.model.generation import Closed, Generation, SigningRequest, Submission
from broker.model.secret import Secret
from broker.model.stage import Stage
from broker.model.subject import KeyRules
from broker.partners.verdict import Verdict
from broker.rotation.amend import amend
from broker.rotation.canary import CanaryRefusedError, try_out
from broker.rotation.draft import draft
from broker.rotation.open import add_account
from broker.rotation.password import SLOTS, set_password
from broker.rotation.ports import Answer
from broker.rotation.retire import retire
from broker.rotation.submit import submit
from tests.rotation.life import Commands, Step, midway
from tests.rotation.world import Fault, Killed, World, _Keys
from tests.support.accounts import BY, MZP, PLANTED, an_account, assert_refused


def a_world(begun: str = "open request") -> World:
    return midway(begun).branch()


# -- open


def test_the_same_account_a_second_time_is_what_is_stored() -> None:
    world = a_world()
    Commands(world).open()
    assert len(world.account.generations) == 3


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
def test_another_account_of_its_name_is_a_conflict_that_says_which(other: dict[str, Any]) -> None:
    world = a_world()
    before = world.account
    with assert_refused(ConflictError, "MZP1"):
        add_account(replace(an_account(**other), outbox=(), head=Head()), accounts=world, by=BY)
    assert world.account == before


# -- password


def test_a_password_goes_into_its_slot_and_into_no_document() -> None:
    world = a_world()
    Commands(world).password(PLANTED)
    assert world.account.password
    assert world.secret(world.account.password) == PLANTED
    assert PLANTED not in repr((world.documents, world.evidence, world.account))


@pytest.mark.parametrize("kills", [1, 2, 5])
def test_slots_of_commands_that_were_killed_are_destroyed(kills: int) -> None:
    world = a_world()
    for taken in range(kills):  # each finds the slots of those before it taken, stores its own, and names none
        world.at, world.fault = len(world.writes) + taken + 2, Fault.KILLED_BEFORE
        with pytest.raises(Killed):
            Commands(world).password("pw-x")
        world.assert_sound()
    world.fault = None
    Commands(world).password("pw-last")
    Commands(world).settle()
    assert sorted(world.secret(s) for s in world.living_passwords()) == ["pw-1", "pw-2", "pw-last"]


def test_slots_taken_without_end_are_told_and_nothing_is_stored() -> None:
    world = a_world()
    first = world.account.next_password
    for slot in range(first, first + SLOTS):
        world.create("password", type(first)(slot), "by nobody")
    with assert_refused(ConflictError, "password slots"):
        Commands(world).password("pw-x")


def test_who_stored_a_password_first_and_named_it_last_is_told_and_it_is_destroyed() -> None:
    world = a_world()
    world.at, world.meanwhile = 2, lambda: Commands(world).password("pw-winner")
    with assert_refused(ConflictError, "password 4"):
        Commands(world).password("pw-loser")
    Commands(world).settle()
    assert "pw-loser" not in {world.secret(s) for s in world.living_passwords()}
    world.assert_sound()


# -- draft


def test_the_same_csr_is_shown_until_its_request_is_closed() -> None:
    world = a_world("no request")
    shown = Commands(world).draft()
    assert Commands(world).draft() == shown
    assert len([w for w in world.writes if w == "key"]) == 1


@pytest.mark.parametrize("write", [1, 2])
def test_two_drafts_at_once_share_one_key_and_show_one_csr(write: int) -> None:
    world = a_world("no request").branch(at=write)
    others: list[str] = []
    world.meanwhile = lambda: others.append(Commands(world).draft())
    assert [Commands(world).draft()] == others
    assert len(world.account.requests) == 3
    world.assert_sound()


class Unlike(_Keys):
    """Signs differently each time, as ECDSA or another release of the broker would."""

    turns = count()

    def sign_request(self, *of: Any) -> str:
        return f"{super().sign_request(*of)}, the {next(self.turns)}."


def test_of_two_drafts_at_once_both_show_the_csr_that_is_stored() -> None:
    world = a_world("no request").branch(at=2)

    def shown() -> SigningRequest:
        return draft(MZP, KeyRules(), accounts=world, keys=Unlike(world), clock=world.clock, by=BY)

    world.meanwhile = shown
    assert shown() == world.account.open_request


@pytest.mark.parametrize("write", [1, 2])
def test_a_draft_that_was_overtaken_and_cancelled_shows_no_empty_csr(write: int) -> None:
    world = a_world("no request").branch(at=write)

    def meanwhile() -> None:
        Commands(world).draft()
        Commands(world).close()

    world.meanwhile = meanwhile
    with assert_refused(ConflictError, "signing request 3", "cancelled"):
        Commands(world).draft()
    assert "by key mzp-1/4" in Commands(world).draft()
    world.assert_sound()


def test_a_key_that_was_destroyed_while_a_draft_slept_is_not_made_again() -> None:
    """The slot stays taken, so the sleeper finds nothing to adopt, and stores nothing."""
    world = a_world("no request").branch(at=1)

    def meanwhile() -> None:
        Commands(world).draft()
        Commands(world).close()
        Commands(world).settle()

    world.meanwhile = meanwhile
    with assert_refused(ConflictError, "signing request 3", "cancelled"):
        Commands(world).draft()
    world.assert_sound()


# -- submit and close


def test_nothing_is_submitted_where_nothing_is_open() -> None:
    with assert_refused(RefusedError, "answered"):
        Commands(a_world("no request")).submit()


def test_nothing_was_sent_before_it_was_drafted() -> None:
    world = a_world()
    sent = Submission(world.now - timedelta(days=300), "hand")
    with assert_refused(InputError, "drafted"):
        submit(MZP, 3, sent, accounts=world, by=BY)
    assert world.writes == []


@pytest.mark.parametrize("number", [0, 3])
def test_a_request_is_closed_by_number_or_because_it_is_open(number: int) -> None:
    world = a_world()
    Commands(world).close(number)
    assert world.account.request(3).closed is Closed.CANCELLED


def test_what_is_answered_or_not_there_is_not_closed() -> None:
    with assert_refused(ConflictError, "answered"):
        Commands(a_world()).close(1)
    with assert_refused(UnknownNameError):
        Commands(a_world()).close(9)
    with assert_refused(RefusedError, "no open signing request"):
        Commands(a_world("no request")).close()


# -- retire


def test_a_straggler_blocks_retirement_until_a_person_gives_a_reason() -> None:
    world = a_world()
    world.held = frozenset({"billing", "app"})
    with assert_refused(WaitingError, "app, billing"):
        Commands(world).retire(1)
    assert world.writes == []
    forced = partial(retire, MZP, 1, accounts=world, stragglers=world.stragglers, clock=world.clock, by=BY)
    assert forced(reason="gone for good")
    assert world.account.generation(1).stage is Stage.RETIRED
    assert not forced()  # done is done, whoever still holds it


@pytest.mark.parametrize("number", [2, 3])
def test_what_may_not_retire_is_refused_for_that_and_not_for_its_stragglers(number: int) -> None:
    world = a_world()
    world.held = frozenset({"billing"})
    with assert_refused(RefusedError, f"generation {number}"):
        Commands(world).retire(number)


def test_what_was_current_again_while_its_holders_were_counted_is_not_retired() -> None:
    world = a_world()
    current = world.account.current
    assert current

    def counted(*_: object) -> frozenset[str]:  # nobody then; and then others roll back, hand it out, and go on
        Commands(world).roll_back(1)
        Commands(world).promote(current.number)
        return frozenset()

    with assert_refused(ConflictError, "generation 1"):
        retire(MZP, 1, accounts=world, stragglers=counted, clock=world.clock, by=BY)
    assert world.account.generation(1).stage is Stage.PREVIOUS


# -- canary


def test_a_retired_set_is_not_tried() -> None:
    world = a_world()
    Commands(world).retire(1)
    with assert_refused(RefusedError, "retired"):
        Commands(world).canary(1)
    assert world.logins == []


def test_a_login_rejected_trips_the_breaker_even_when_a_kill_hid_the_answer_before() -> None:
    world = a_world()
    world.at, world.fault, world.verdict = 2, Fault.KILLED_BEFORE, Verdict.LOGIN_REJECTED
    with pytest.raises(Killed):
        Commands(world).promote(3)
    assert world.account.tries[-1].verdict == ""
    world.now += timedelta(minutes=3)
    with assert_refused(CanaryRefusedError):
        Commands(world).promote(3)
    assert world.account.breaker
    assert len(world.logins) == 2


def rejected_client(world: World, meanwhile: Step) -> None:
    """Try generation 2 for `fleet`; the partner knows no such client_id, and `meanwhile` comes before its answer."""

    def canary(account: Account, generation: Generation) -> Callable[[], Answer]:
        def send() -> Answer:
            meanwhile(Commands(world))
            return Answer(Verdict.CLIENT_REJECTED, application="fleet")

        return send

    try_out(MZP, 2, accounts=world, canary=canary, clock=world.clock, by=BY)


def test_a_rejected_client_id_marks_the_application_that_has_it_and_no_more() -> None:
    world = a_world()
    Commands(world).application()
    rejected_client(world, lambda c: None)
    assert world.account.application("fleet").rejected_at
    assert not world.account.breaker


def test_a_client_id_that_was_set_while_another_was_tried_is_not_called_rejected() -> None:
    world = a_world()
    Commands(world).application()

    def rename(account: Account) -> Account:
        return application_set(account, "fleet", "another", at=world.now, by=BY)

    rejected_client(world, lambda c: amend(world, MZP, rename))
    assert not world.account.application("fleet").rejected_at


def wrong_clock() -> datetime:
    raise RefusedError("the clock is wrong")


def test_a_wrong_clock_stores_no_key() -> None:
    world = a_world("no request")
    with assert_refused(RefusedError, "clock is wrong"):
        draft(MZP, KeyRules(), accounts=world, keys=world.keys, clock=wrong_clock, by=BY)
    assert world.writes == []


def test_a_wrong_clock_stores_no_password() -> None:
    world = a_world()
    with assert_refused(RefusedError, "clock is wrong"):
        set_password(MZP, Secret("new"), accounts=world, passwords=world.passwords, clock=wrong_clock, by=BY)
    assert world.writes == []


def test_a_verdict_is_stored_by_any_clock() -> None:
    """Else the breaker stays closed after a rejected login."""
    world = a_world()
    world.verdict = Verdict.LOGIN_REJECTED
    times = iter([world.now])

    def goes_wrong() -> datetime:
        return next(times, None) or wrong_clock()

    try_out(MZP, 2, accounts=world, canary=world.canary, clock=goes_wrong, by=BY)
    assert world.account.breaker
    assert world.account.breaker.at == world.now


def test_what_fails_on_our_side_is_no_try() -> None:
    world = a_world()

    def canary(account: Account, generation: Generation) -> Callable[[], Answer]:
        raise RefusedError("the password is destroyed")

    with assert_refused(RefusedError, "destroyed"):
        try_out(MZP, 2, accounts=world, canary=canary, clock=world.clock, by=BY)
    assert world.writes == []
