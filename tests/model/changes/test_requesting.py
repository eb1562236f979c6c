"""Signing requests: opened, sent, closed, answered."""

from __future__ import annotations

import pytest

from broker.copies import replace
from broker.errors import ConflictError, RefusedError, UnknownNameError
from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.changes import moving, registering, requesting
from broker.model.clock import Stamp
from broker.model.generation import Closed, Submission
from broker.model.stage import Move
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    a_certificate,
    a_request,
    an_account,
    assert_refused,
    assert_sound,
    assert_unchanged,
    ca_set_named,
    later,
    only,
    with_candidate,
    with_current,
    with_new_password,
    with_open_request,
)

SENT = Submission(NOW, "eml", "desk@partner.test", "", "<1@broker.test>")


def waiting() -> Account:
    return with_open_request(with_current())


def close(account: Account, why: Closed = Closed.CANCELLED, number: int = 2) -> Account:
    return requesting.closed(account, number, why, Stamp(later(hours=1), BY))


def answer(account: Account, number: int = 2, serial: str = "01") -> Account:
    return requesting.answered(
        account, number, a_certificate(account, number, serial=serial), Stamp(later(hours=1), BY)
    )


def test_a_request_is_opened_and_noted_once() -> None:
    account = waiting()
    assert account.open_request == account.requests[-1]
    assert account.outbox[-1].what == "request-drafted"
    request = account.requests[-1]
    assert_unchanged(account, lambda a: requesting.requested(a, request, by=BY))


def test_closed_request_is_not_reopened() -> None:
    account = close(waiting())
    assert_unchanged(account, lambda a: requesting.requested(a, a_request(a, slot=2), by=BY))


def test_two_requests_cannot_wait() -> None:
    with assert_refused(ConflictError, "open signing request", "2"):
        requesting.requested(waiting(), a_request(waiting()), by=BY)


def test_submission_counts_once() -> None:
    account = requesting.submitted(waiting(), 2, SENT, by=BY)
    assert_unchanged(account, lambda a: requesting.submitted(a, 2, replace(SENT, at=later(days=1)), by=BY))
    assert_sound(account)


@pytest.mark.parametrize("other", [{"via": "hand"}, {"to": "x@y.test"}, {"reference": "7"}, {"message_id": "<2>"}])
def test_other_evidence_of_sending_is_added(other: dict[str, str]) -> None:
    account = requesting.submitted(waiting(), 2, SENT, by=BY)
    account = requesting.submitted(account, 2, replace(SENT, **other), by=BY)  # type: ignore[arg-type]
    assert len(account.request(2).submissions) == 2


def test_what_is_closed_is_not_sent() -> None:
    with assert_refused(RefusedError, "cancelled"):
        requesting.submitted(close(waiting()), 2, SENT, by=BY)


def test_submission_outlives_the_request() -> None:
    account = close(requesting.submitted(waiting(), 2, SENT, by=BY))
    assert_unchanged(account, lambda a: requesting.submitted(a, 2, SENT, by=BY))


@pytest.mark.parametrize("why", [Closed.CANCELLED, Closed.REJECTED, Closed.SUPERSEDED])
def test_closing_dooms_key_and_drops_csr(why: Closed) -> None:
    account = close(waiting(), why)
    assert account.doomed_keys == {"kv:2"}
    assert account.request(2).spki == waiting().request(2).spki
    assert account.request(2).csr == ""
    assert_unchanged(account, lambda a: close(a, why))
    assert_sound(account)


def test_a_refusal_keeps_its_reason() -> None:
    account = requesting.closed(waiting(), 2, Closed.REJECTED, STAMP, "wrong O")
    assert account.refused_request == account.request(2)
    assert account.request(2).closed_because == account.outbox[-1].facts["reason"] == "wrong O"
    assert_unchanged(account, lambda a: requesting.closed(a, 2, Closed.REJECTED, STAMP, "another"))
    assert_sound(account)


@pytest.mark.parametrize(
    ("first", "second"), [(Closed.CANCELLED, Closed.REJECTED), (Closed.REJECTED, Closed.SUPERSEDED)]
)
def test_second_reason_is_a_conflict(first: Closed, second: Closed) -> None:
    with assert_refused(ConflictError, first.value, "meanwhile"):
        close(close(waiting(), first), second)


def test_answered_request_is_not_cancelled() -> None:
    with assert_refused(ConflictError, "answered"):
        close(answer(waiting()))


@pytest.mark.parametrize("change", [close, answer])
def test_missing_request_is_unknown_name(change: object) -> None:
    with assert_refused(UnknownNameError, "signing request 9"):
        change(waiting(), number=9)  # type: ignore[operator]


def test_answer_makes_a_candidate() -> None:
    account = answer(waiting())
    assert account.request(2).closed is Closed.ANSWERED
    candidate = only(account.candidates)
    assert (candidate.number, candidate.parts.key) == (2, "kv:2")
    assert candidate.parts.names == {"certificate"}
    assert account.doomed_keys == frozenset()
    assert_sound(account)


def test_repeated_answer_changes_nothing() -> None:
    account = answer(waiting())
    assert_unchanged(account, answer)
    assert_unchanged(moving.moved(account, 2, Move.PROMOTE, STAMP), answer)


def test_second_certificate_is_refused() -> None:
    with assert_refused(RefusedError, "signing request 2", "answered"):
        answer(answer(waiting()), serial="02")


@pytest.mark.parametrize("why", [Closed.CANCELLED, Closed.REJECTED, Closed.SUPERSEDED])
def test_a_late_answer_is_named_and_refused(why: Closed) -> None:
    with assert_refused(RefusedError, "signing request 2", why.value):
        answer(close(waiting(), why))


def test_no_candidate_without_a_password() -> None:
    account = registering.ca_accepted(with_open_request(), ca_set_named("ca"), STAMP)
    account = registering.trust_set(account, ca_set_named("ca"), STAMP)
    with assert_refused(RefusedError, "no password"):
        answer(account, 1)


@pytest.mark.parametrize("pin", [registering.ca_accepted, registering.trust_set])
def test_candidate_needs_both_cas(pin: object) -> None:
    account = registering.secret_set(with_open_request(), PASSWORD, 1, STAMP)
    account = pin(account, ca_set_named("ca"), STAMP)  # type: ignore[operator]
    with assert_refused(RefusedError, "no accepted CA"):
        answer(account, 1)


def test_candidate_takes_proven_password() -> None:
    account = answer(with_open_request(with_new_password(with_current())))
    assert account.parts_of(account.generation(3)).password == 1


def test_first_candidate_takes_newest() -> None:
    account = with_open_request(with_new_password(with_candidate(an_account())))
    assert answer(account).candidates[-1].parts.password == 2
