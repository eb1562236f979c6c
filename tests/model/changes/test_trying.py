"""Canaries: reserved before they are sent, answered, and stopped by obstacles."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from broker.copies import replace
from broker.errors import ConflictError, RefusedError, UnknownNameError, WaitingError
from broker.model.account import Account
from broker.model.changes import moving, trying
from broker.model.changes.trying import TRIES_KEPT
from broker.model.clock import Stamp
from broker.model.stage import Move
from broker.model.todo import LONGEST_PAUSE, TRY_TIMEOUT, UNANSWERED, obstacles
from broker.model.verdict import CanaryResult, Verdict
from tests.support import accounts
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    assert_refused,
    assert_sound,
    assert_unchanged,
    later,
    promoted,
    with_answer,
    with_new_password,
)

SOON = TRY_TIMEOUT / 2


def with_current() -> Account:
    """Return an account with a current set, the canary of which is forgotten: tries are counted from here."""
    return replace(accounts.with_current(), tries=())


def send(account: Account, id_: str = "a", generation: int = 1, after: timedelta = timedelta()) -> Account:
    parts = account.parts_of(account.generation(generation))
    return trying.canary_sent(account, generation, parts, id_, Stamp(NOW + after, BY))


def answer(
    account: Account, number: int = 1, verdict: str = "ok", at: datetime = NOW, wait: timedelta | None = None
) -> Account:
    application = next((a for a in account.applications if a.name == "fleet"), None)
    result = CanaryResult(Verdict(verdict), wait=wait, application=application)
    return trying.canary_answered(account, number, result, Stamp(at, BY))


def locked() -> Account:
    return answer(send(with_current()), verdict="login_rejected")


def unanswered(count: int) -> Account:
    account = with_current()
    for n in range(count):
        account = send(account, f"id-{n}", after=n * TRY_TIMEOUT)
    return account


def test_a_try_is_reserved_and_noted_once() -> None:
    account = send(with_current())
    assert account.tries[-1].verdict == ""
    assert account.outbox[-1].what == "canary-sent"
    assert_sound(account)
    assert_unchanged(account, send)


def test_reservation_is_found_by_id() -> None:
    account = send(send(with_current(), "a"), "b", after=TRY_TIMEOUT)
    assert_unchanged(account, lambda a: send(a, "a", after=3 * TRY_TIMEOUT))


def test_reservations_differ_in_evidence() -> None:
    """Else one of two machines would take the other's entry for its own."""
    assert send(with_current(), "a").head != send(with_current(), "b").head


def test_missing_generation_is_not_tried() -> None:
    with assert_refused(UnknownNameError, "generation 9"):
        send(with_current(), generation=9)


def test_retired_generation_is_not_tried() -> None:
    account = moving.moved(promoted(with_answer(with_current()), 2), 1, Move.RETIRE, STAMP)
    with assert_refused(RefusedError, "generation 1", "retired"):
        send(account)


@pytest.mark.parametrize("apart", [timedelta(), SOON, -SOON, TRY_TIMEOUT - timedelta(microseconds=1)])
def test_one_canary_at_a_time(apart: timedelta) -> None:
    with assert_refused(ConflictError, "on its way"):
        send(send(with_current()), "b", after=apart)


@pytest.mark.parametrize("apart", [TRY_TIMEOUT, -TRY_TIMEOUT, timedelta(days=-400)])
def test_killed_canary_stops_blocking(apart: timedelta) -> None:
    assert send(send(with_current()), "b", after=apart).tries[-1].id == "b"


def test_next_try_after_an_answer() -> None:
    assert len(send(answer(send(with_current())), "b").tries) == 2


def test_breaker_stops_every_generation() -> None:
    account = with_answer(locked())
    for generation in (1, 2):
        with assert_refused(RefusedError, "rejected the login"):
            send(account, "b", generation, after=timedelta(days=400))


def test_breaker_names_password_and_set() -> None:
    breaker = locked().breaker
    assert breaker
    assert (breaker.password, breaker.generation) == (1, 1)


def test_pause_holds_to_the_second() -> None:
    account = answer(send(with_current()), verdict="quota", wait=timedelta(hours=1))
    with assert_refused(WaitingError, "back off"):
        send(account, "b", after=timedelta(minutes=59, seconds=59))
    assert send(account, "b", after=timedelta(hours=1)).tries[-1].id == "b"


def test_no_pause_is_longer_than_a_day() -> None:
    account = answer(send(with_current()), verdict="quota", wait=timedelta(days=800))
    assert account.not_before == NOW + LONGEST_PAUSE


@pytest.mark.parametrize("ends", [timedelta(days=2), timedelta(days=730)])
def test_a_stored_pause_of_more_is_over(ends: timedelta) -> None:
    account = replace(with_current(), not_before=NOW + ends)
    assert not list(obstacles(account, NOW))
    late = answer(send(send(account, "a"), "b", after=TRY_TIMEOUT), 1, "quota", wait=timedelta(hours=1))
    assert late.not_before == later(hours=1)


def test_day_long_pause_allows_clock_skew() -> None:
    account = answer(send(with_current()), verdict="quota", wait=LONGEST_PAUSE)
    assert [o.code for o in obstacles(account, later(minutes=-9))] == ["pause"]


@pytest.mark.parametrize(
    ("account", "code", "until", "role"),
    [
        (locked(), "breaker", None, "operator"),
        (answer(send(with_current()), verdict="quota", wait=timedelta(hours=1)), "pause", later(hours=1), "rotator"),
        (unanswered(UNANSWERED), "unanswered", None, "rotator"),
    ],
)
def test_an_obstacle_says_how_it_ends(account: Account, code: str, until: datetime | None, role: str) -> None:
    at = NOW + UNANSWERED * TRY_TIMEOUT
    (found,) = obstacles(account, at)
    assert (found.code, found.until) == (code, until)
    assert f"(role {role})" in found.hint
    assert f"broker rotation canary {account.name} --force --reason TEXT (role rotator)" in found.hint


@pytest.mark.parametrize("late", [None, timedelta(seconds=5)])
def test_late_answer_keeps_the_pause(late: timedelta | None) -> None:
    account = send(send(with_current(), "a"), "b", after=TRY_TIMEOUT)
    account = answer(account, 2, "quota", wait=timedelta(hours=1))
    assert answer(account, 1, "ok", wait=late).not_before == later(hours=1)


def test_late_answer_may_lengthen_the_pause() -> None:
    account = send(send(with_current(), "a"), "b", after=TRY_TIMEOUT)
    account = answer(account, 2, "quota", wait=timedelta(hours=1))
    assert answer(account, 1, "quota", wait=timedelta(hours=2)).not_before == later(hours=2)


def test_the_newest_answer_ends_the_pause() -> None:
    account = answer(send(with_current()), verdict="quota", wait=timedelta(hours=1))
    assert answer(send(account, "b", after=timedelta(hours=1)), 2).not_before is None


def test_unanswered_tries_stop() -> None:
    with assert_refused(RefusedError, f"last {UNANSWERED} canaries"):
        send(unanswered(UNANSWERED), "x", after=timedelta(days=1))
    assert send(unanswered(UNANSWERED - 1), "x", after=timedelta(days=1)).tries[-1].id == "x"


@pytest.mark.parametrize("stuck", [locked(), unanswered(UNANSWERED)], ids=["locked", "unanswered"])
def test_a_person_allows_tries_again_once(stuck: Account) -> None:
    def reset(account: Account) -> Account:
        return trying.breaker_reset(account, "unlocked by phone", STAMP)

    after = reset(stuck)
    assert after.outbox[-1].facts["reason"] == "unlocked by phone"
    assert_unchanged(after, reset)
    assert send(after, "x", after=timedelta(days=1)).tries[-1].id == "x"


def test_reset_ends_the_pause() -> None:
    paused = answer(send(with_current()), verdict="quota", wait=timedelta(hours=5))
    account = trying.breaker_reset(paused, "they said so", STAMP)
    assert account.not_before is None
    assert send(account, "b").tries[-1].id == "b"


def test_needless_reset_changes_nothing() -> None:
    assert_unchanged(with_current(), lambda a: trying.breaker_reset(a, "?", STAMP))


def test_an_answer_is_stored_once() -> None:
    account = answer(send(with_current()))
    assert account.tries[-1].verdict == "ok"
    assert_unchanged(account, answer)
    assert_sound(account)


def test_unknown_try_changes_nothing() -> None:
    assert_unchanged(with_current(), answer)


def test_answer_after_reset_trips_breaker() -> None:
    """The partner counted it, whatever a person thought meanwhile."""
    account = trying.breaker_reset(unanswered(1), "?", STAMP)
    assert answer(account, verdict="login_rejected").breaker


def test_rejected_client_id_stops_nothing() -> None:
    account = answer(send(with_current()), verdict="client_rejected")
    assert account.application("fleet").rejected_at == NOW
    assert send(account, "b").tries[-1].id == "b"


def test_only_the_last_tries_are_kept() -> None:
    account = with_current()
    for n in range(1, TRIES_KEPT + 5):
        account = answer(send(account, f"id-{n}"), n)
    assert [t.number for t in account.tries] == list(range(5, TRIES_KEPT + 5))


def test_try_uses_its_own_password() -> None:
    account = with_new_password(with_current())
    account = answer(send(account, generation=2), verdict="login_rejected")
    assert account.breaker
    assert account.breaker == replace(account.breaker, password=2, generation=2)


def test_canary_on_its_way_says_until_when() -> None:
    """A command that was killed in a canary is run again: the hint is the time from which that works."""
    sent = send(with_current())
    with pytest.raises(ConflictError) as refused:
        send(sent, "b", after=SOON)
    assert f"wait until {NOW + TRY_TIMEOUT:%TZ}" in refused.value.hint
    assert send(sent, "b", after=TRY_TIMEOUT).tries[-1].id == "b"
