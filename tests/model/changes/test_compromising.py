"""A key that others know: reported once, replaced without waiting, loud until its certificate is dead."""

from __future__ import annotations

import pytest

from broker.copies import replace
from broker.errors import RefusedError
from broker.evidence.tamper import differences
from broker.model.account import Account
from broker.model.changes import compromising, importing, moving, requesting
from broker.model.generation import Closed, KeyRef
from broker.model.history import account_state, fold
from broker.model.stage import Move, Stage
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
    promoted,
    with_answer,
    with_current,
    with_new_password,
    with_open_request,
    without_texts,
)


def report(account: Account, *, suspend: bool = False) -> Account:
    return compromising.compromised(account, "stolen laptop", STAMP, suspend=suspend)


def replaced() -> Account:
    """Generation 1 has a key that others know; 2 has replaced it."""
    return promoted(with_answer(report(with_current())), 2)


def revoke(account: Account, number: int = 1) -> Account:
    return compromising.certificate_revoked(account, number, "by telephone", STAMP)


def with_same_key(account: Account | None = None) -> Account:
    """Return `account` with an open request for its current key."""
    account = account or with_current()
    request = replace(requesting.reusable_request(account), number=account.next_request, csr="again", closed=None)
    return requesting.requested_with_same_key(account, replace(request, drafted_at=NOW, closed_at=None), by=BY)


def test_a_report_is_made_once_and_kept() -> None:
    account = report(with_current())
    assert account.compromised == account.current
    assert account.compromise
    assert account.compromise.reason == "stolen laptop"
    assert account.suspended is None
    assert_unchanged(account, report)
    assert_sound(account)


def test_a_report_may_suspend_now_or_later() -> None:
    assert report(with_current(), suspend=True).suspended
    later = report(report(with_current()), suspend=True)
    assert later.suspended
    assert_unchanged(later, lambda a: report(a, suspend=True))
    assert_sound(later)


def test_without_a_current_key_nobody_has_it() -> None:
    with assert_refused(RefusedError, "no current generation"):
        report(with_open_request(an_account()))


def test_requests_with_the_key_end_others_stay() -> None:
    closed = report(with_same_key())
    assert closed.request(2).closed is Closed.SUPERSEDED
    assert "kv:1" not in closed.doomed_keys, "the current generation has it"
    assert report(with_open_request(with_current())).open_request
    assert_sound(closed)


def test_candidates_with_the_key_are_rejected() -> None:
    account = with_same_key()
    candidate = requesting.answered(account, 2, a_certificate(account, 1, serial="02"), STAMP)
    waiting = with_new_password(candidate)
    assert {g.number: g.stage for g in report(waiting).generations} == {
        1: Stage.CURRENT,
        2: Stage.REJECTED,
        3: Stage.CANDIDATE,  # the password
    }
    assert_sound(report(waiting))


def test_it_is_loud_until_the_certificate_is_dead() -> None:
    assert replaced().compromised == replaced().generation(1)
    over = revoke(replaced())
    assert over.compromised is None
    assert over.compromise_of(KeyRef("kv:1")), "it is never served again"
    assert_unchanged(over, revoke)
    assert_sound(over)


def test_what_is_current_is_not_dead() -> None:
    with assert_refused(RefusedError, "generation 1 of mzp-1 is current"):
        revoke(report(with_current()))
    with assert_refused(RefusedError, "generation 2 of mzp-1 is current"):
        revoke(promoted(with_new_password(report(with_current())), 2))


@pytest.mark.parametrize("number", [1, 2])
def test_an_unknown_compromise_is_not_ended(number: int) -> None:
    with assert_refused(RefusedError, f"generation {number}"):
        revoke(promoted(with_answer(with_current()), 2), number)


@pytest.mark.parametrize("hidden", [{"compromised": None}, {"revoked_at": NOW}])
def test_hiding_a_compromise_is_found(hidden: dict[str, object]) -> None:
    account = without_texts(replaced())
    assert not list(differences(account, account.outbox))
    forged = replace(account, requests=(replace(account.requests[0], **hidden), *account.requests[1:]))  # type: ignore[arg-type]
    assert fold(account.outbox) != account_state(forged)
    (found,) = differences(forged, forged.outbox)
    assert found.startswith("the keys of mzp-1 that others know")


# -- the same key again


def test_two_generations_share_a_key() -> None:
    account = with_same_key()
    assert account.open_request == account.request(2)
    assert account.doomed_keys == {"kv:2"}, "a killed run may have made it"
    account = promoted(requesting.answered(account, 2, a_certificate(account, 1, serial="02"), STAMP), 2)
    assert {g.parts.key for g in account.living} == account.keys_in_use == {"kv:1"}
    account = moving.moved(account, 1, Move.RETIRE, STAMP)
    assert "kv:1" not in account.doomed_keys
    assert account.next_request == 3
    assert_sound(account)


def test_cancelling_keeps_the_shared_key() -> None:
    account = requesting.closed(with_same_key(), 2, Closed.CANCELLED, STAMP)
    assert "kv:1" not in account.doomed_keys
    assert_sound(with_same_key(account))


def test_a_rejected_answer_is_asked_about() -> None:
    account = with_same_key()
    account = requesting.answered(account, 2, a_certificate(account, 1, serial="02"), STAMP)
    assert account.answered_only_by(account.generation(2)) == account.request(2)


@pytest.mark.parametrize(
    ("account", "why"),
    [
        (an_account(), "no current generation"),
        (report(with_current()), "others know it"),
        (importing.copies_noted(with_current(), 1, ["web-1"], STAMP), ""),
    ],
)
def test_a_key_that_was_outside_is_not_reused(account: Account, why: str) -> None:
    if why:
        with assert_refused(RefusedError, why):
            requesting.reusable_request(account)
    imported = replace(with_current(), requests=(replace(with_current().requests[0], imported=True),))
    with assert_refused(RefusedError, "it was made outside"):
        requesting.reusable_request(imported)


def test_a_key_made_for_the_same_number_is_doomed() -> None:
    """A concurrent `csr new` stored it, and another request was opened under its number."""
    account = with_same_key(with_current())
    settled = replace(account, doomed_keys=frozenset())
    assert requesting.without_key(settled, 2, KeyRef("kv:2")).doomed_keys == {"kv:2"}
    own = with_open_request(with_current())
    assert_unchanged(own, lambda a: requesting.without_key(a, 2, a_request(a, slot=2).key))
