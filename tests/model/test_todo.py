"""The state of an account and the next step, by its facts."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.changes import compromising, moving, registering, requesting, trying
from broker.model.clock import Stamp
from broker.model.due import Renewal
from broker.model.generation import Closed, Submission
from broker.model.life_cycle import Phase, State, Who
from broker.model.situation import situation
from broker.model.stage import Move
from broker.model.todo import Todo, next_todo, overlap_end
from broker.model.verdict import CanaryResult, Verdict
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    a_certificate,
    an_account,
    ca_set_named,
    later,
    with_answer,
    with_current,
    with_new_password,
    with_open_request,
)

DAY = timedelta(days=1)
END = later(days=365)


def step(account: Account, now: datetime = NOW) -> Todo:
    return next_todo(situation(account, Renewal(), now))


def tried(account: Account, number: int, verdict: Verdict, at: datetime = NOW) -> Account:
    parts = account.parts_of(account.generation(number))
    sent = trying.canary_sent(account, number, parts, f"{number} {verdict.value}", Stamp(at, BY))
    answer = CanaryResult(verdict, application=account.applications[0])
    return trying.canary_answered(sent, sent.tries[-1].number, answer, Stamp(at, BY))


def served(account: Account) -> Account:
    """Return `account` with every client_id known."""
    for application in account.applications:
        account = registering.application_set(account, application.name, f"id-{application.name}", STAMP)
    return account


def with_password() -> Account:
    account = registering.application_set(an_account(), "fleet", "id-fleet", STAMP)
    return registering.secret_set(account, PASSWORD, 1, STAMP)


def renewing() -> Account:
    """An account with a current set, and a candidate that was never tried."""
    return with_answer(with_open_request(served(with_current())))


@pytest.mark.parametrize("account", [served(with_current()), renewing(), tried(renewing(), 2, Verdict.WRONG_CA)])
def test_expired_certificate_comes_first(account: Account) -> None:
    found = step(account, END)
    assert found.state is State.EXPIRED
    assert found.message.startswith(f"EXPIRED on {END:%F %TZ}; ")
    assert (found.who, found.hint) != (Who.NOBODY, ""), "and the step that ends it"
    assert step(account, END - timedelta(seconds=1)).state is not State.EXPIRED


@pytest.mark.parametrize("verdict", [v for v in Verdict if v.refuses])
def test_refused_candidate_shows_the_remedy(verdict: Verdict) -> None:
    assert step(renewing()).message == "generation 2 is ready to be tried"
    found = step(tried(renewing(), 2, verdict))
    assert (found.state, found.who) == (State.STOPPED, Who.US)
    if verdict is not Verdict.LOGIN_REJECTED:  # whose breaker comes first
        assert f"on {NOW:%F %TZ} the partner's answer to generation 2 was {verdict.value}" in found.message
        assert "; then: broker rotation promote mzp-1; or, " in found.hint
        assert found.hint.endswith("broker rotation reject mzp-1 --generation 2 --reason TEXT")
    assert "ACCOUNT" not in found.hint
    assert "APPLICATION" not in found.hint


@pytest.mark.parametrize("verdict", [Verdict.PARTNER_DOWN, Verdict.QUOTA])
def test_answer_about_nothing_is_tried_again(verdict: Verdict) -> None:
    found = step(tried(renewing(), 2, verdict))
    assert found.message == f"generation 2 is ready to be tried again (on {NOW:%F %TZ} the answer was {verdict.value})"
    assert found.hint == "broker rotation promote mzp-1"


def test_an_accepted_candidate_says_so() -> None:
    found = step(tried(renewing(), 2, Verdict.OK))
    assert found.message == f"generation 2 is ready to be promoted (accepted on {NOW:%F %TZ})"


def test_other_parts_are_another_set() -> None:
    """A new password changes what the candidate makes: the old answer says nothing about it."""
    account = with_new_password(tried(renewing(), 2, Verdict.CERTIFICATE_REJECTED))
    account = tried(account, 3, Verdict.OK)
    account = moving.moved(account, 3, Move.PROMOTE, STAMP)
    assert step(account).message == "generation 2 is ready to be tried"


def test_refused_current_set_is_reported() -> None:
    found = step(tried(served(with_current()), 1, Verdict.CERTIFICATE_REJECTED))
    assert found.state is State.STOPPED
    assert found.hint.endswith("; then: broker rotation canary mzp-1")
    assert step(tried(tried(served(with_current()), 1, Verdict.WRONG_CA), 1, Verdict.OK)).state is State.OK


def test_suspension_is_the_next_step() -> None:
    account = registering.suspended(served(with_current()), "stolen", STAMP)
    found = step(account)
    assert (found.state, found.hint) == (State.SUSPENDED, "broker account resume mzp-1")
    assert "stolen" in found.message
    assert step(account, END).state is State.EXPIRED
    assert step(account, END).message.startswith(f"EXPIRED on {END:%F %TZ} and suspended; ")
    stopped = step(tried(account, 1, Verdict.WRONG_CA))
    assert (stopped.state, stopped.message[:11]) == (State.STOPPED, "suspended; ")


def test_a_refusal_is_no_silence() -> None:
    sent = requesting.submitted(with_open_request(served(with_current())), 2, Submission(NOW, "hand"), by=BY)
    silent = step(sent, later(days=22))
    assert (silent.who, silent.state, silent.hint) == (Who.PARTNER, State.DUE, "broker csr submit mzp-1")
    refused = requesting.closed(sent, 2, Closed.REJECTED, STAMP, "wrong O")
    found = step(refused)
    assert (found.who, found.state, found.hint) == (Who.US, State.DUE, "broker csr new mzp-1")
    assert found.message == f"the partner refused signing request 2 on {NOW:%F}: wrong O; correct it"
    assert step(with_open_request(refused)).message == "signing request 3 was never sent"
    assert step(requesting.closed(sent, 2, Closed.CANCELLED, STAMP)).state is State.OK


def test_a_known_key_stays_loud() -> None:
    """Each step says so, whatever comes first, until the partner has revoked the certificate."""
    known = compromising.compromised(served(with_current()), "stolen", STAMP, suspend=True)
    waiting = with_open_request(known)
    sent = requesting.submitted(waiting, 2, Submission(NOW, "hand"), by=BY)
    candidate = with_answer(sent)
    over = moving.moved(tried(candidate, 2, Verdict.OK), 2, Move.PROMOTE, STAMP)
    retired = moving.moved(over, 1, Move.RETIRE, STAMP)
    hints = [step(account).hint for account in (known, waiting, sent, candidate, over, retired)]
    assert hints == [
        "broker csr new mzp-1",
        "broker csr submit mzp-1",
        "broker cert import mzp-1 FILE",
        "broker rotation promote mzp-1",
        *["broker rotation revoked mzp-1 --generation 1"] * 2,
    ]
    for account in (known, waiting, sent, candidate, over, retired):
        assert step(account).message.startswith(f"COMPROMISED on {NOW:%F %TZ} (stolen) and suspended; ")
        assert step(account).state is State.STOPPED
    dead = compromising.certificate_revoked(retired, 1, "", STAMP)
    assert step(dead).state is State.SUSPENDED


def test_a_request_of_before_is_sent_again() -> None:
    """The partner must hear of it, though it has the CSR."""
    sent = requesting.submitted(with_open_request(served(with_current())), 2, Submission(NOW, "hand"), by=BY)
    known = compromising.compromised(sent, "stolen", Stamp(later(days=1), BY), suspend=False)
    assert "ask the partner to revoke" in step(known, later(days=1)).message
    told = requesting.submitted(known, 2, Submission(later(days=2), "eml"), by=BY)
    assert step(told, later(days=2)).hint == "broker cert import mzp-1 FILE"


def test_an_earlier_end_is_a_persons_decision() -> None:
    account = with_open_request(served(with_current()))
    account = requesting.answered(account, 2, a_certificate(account, 2, days=30), STAMP)
    found = step(account)
    assert found.message == "the certificate of generation 2 ends before the current one"
    assert "promote mzp-1 --force --reason TEXT" in found.hint


def test_a_certificate_shorter_than_the_overlap() -> None:
    """Renewal is due as soon as it is current, beside the old generation."""
    account = with_password()
    account = registering.ca_accepted(account, ca_set_named("ca"), STAMP)
    account = registering.trust_set(account, ca_set_named("server-ca"), STAMP)
    for number in (1, 2):
        account = with_open_request(account)
        account = requesting.answered(account, number, a_certificate(account, number, days=3), STAMP)
        account = moving.moved(tried(account, number, Verdict.OK), number, Move.PROMOTE, STAMP)
    assert (step(account).phase, step(account).hint) == (Phase.DUE, "broker csr new mzp-1")
    assert step(with_open_request(account)).phase is Phase.DRAFTED
    assert len(account.living) == len(account.generations), "the way back is kept"


def test_an_older_set_may_outlive_the_current() -> None:
    """It is the way back after the current one's end, and kept until its own."""
    account = with_open_request(served(with_current()))
    account = requesting.answered(account, 2, a_certificate(account, 2, days=30), STAMP)
    account = moving.moved(tried(account, 2, Verdict.OK), 2, Move.PROMOTE, STAMP)
    assert overlap_end(account, account.generation(1), Renewal()) == END
    found = step(account, later(days=31))
    assert found.message == f"EXPIRED on {later(days=30):%F %TZ}; generation 1 is valid until {END:%F %TZ}"
    assert found.hint == "broker rotation rollback mzp-1 --generation 1"
    assert "is valid until" not in step(account, END).message
    assert step(with_answer(with_open_request(account)), later(days=31)).hint == "broker rotation promote mzp-1"
    back = moving.moved(account, 1, Move.ROLL_BACK, STAMP)
    assert "is valid until" not in step(back, END).message


def test_each_state_is_reached() -> None:
    sent = requesting.submitted(with_open_request(served(with_password())), 1, Submission(NOW, "hand"), by=BY)
    states = {
        State.UNFINISHED: step(with_password()),
        State.WAITING: step(sent),
        State.DUE: step(served(with_current()), END - DAY),
        State.OK: step(served(with_current())),
    }
    assert {state: found.state for state, found in states.items()} == {state: state for state in states}
    assert step(sent, later(days=22)).state is State.DUE, "the partner takes longer than it should"
    assert step(an_account()).state is State.UNFINISHED
