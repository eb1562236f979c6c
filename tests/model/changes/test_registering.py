"""Applications, passwords and CAs of an account."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.changes import moving, registering, trying
from broker.model.changes.registering import AccountSettings
from broker.model.clock import Stamp
from broker.model.generation import Application, Parts, PromotionMode, RenewalMode
from broker.model.stage import Move, Stage
from broker.model.subject import Subject
from broker.model.verdict import CanaryResult, Verdict
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    an_account,
    assert_refused,
    assert_sound,
    assert_unchanged,
    ca_set_named,
    later,
    only,
    parts_of,
    with_answer,
    with_candidate,
    with_current,
    with_new_password,
    with_open_request,
)


def set_client(account: Account, client_id: str, name: str = "fleet") -> Account:
    return registering.application_set(account, name, client_id, Stamp(later(hours=1), BY))


def set_password(account: Account, slot: int) -> Account:
    return registering.secret_set(account, PASSWORD, slot, Stamp(later(hours=1), BY))


def set_trust(account: Account, name: str) -> Account:
    return registering.trust_set(account, ca_set_named(name), Stamp(later(hours=1), BY))


def accept(account: Account, name: str) -> Account:
    return registering.ca_accepted(account, ca_set_named(name), Stamp(later(hours=1), BY))


MODES = AccountSettings(renewal=RenewalMode.DISABLED, promotion=PromotionMode.AUTO)
CHANGES: dict[str, Callable[[Account], Account]] = {
    "an application": lambda a: set_client(a, "id-2", "app-2"),
    "another client_id": lambda a: set_client(a, "id-2"),
    "an application removed": lambda a: registering.application_removed(a, "fleet", STAMP),
    "a password": lambda a: set_password(a, 2),
    "a trust": lambda a: set_trust(a, "server-ca-2"),
    "a CA": lambda a: accept(a, "ca-2"),
    "contacts": lambda a: registering.account_set(a, AccountSettings((), (), "20%"), STAMP),
    "modes": lambda a: registering.account_set(a, MODES, STAMP),
    "a subject": lambda a: registering.subject_set(a, Subject((("CN", "MZP0000002"),)), STAMP),
    "a suspension": lambda a: registering.suspended(a, "key stolen", STAMP),
    "a removal": lambda a: registering.removed(a, "contract ended", STAMP),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("start", [with_candidate, with_current])
def test_a_change_is_noted_and_made_once(name: str, start: Callable[[], Account]) -> None:
    account = start()
    after = CHANGES[name](account)
    assert after.outbox[: len(account.outbox)] == account.outbox
    assert len(after.outbox) > len(account.outbox)
    assert_sound(after)
    assert_unchanged(after, CHANGES[name])


def test_a_new_account_begins_its_chain() -> None:
    account = an_account()
    assert [e.what for e in account.outbox] == ["account-added"]
    assert_sound(account)


def test_empty_client_id_keeps_the_old() -> None:
    assert_unchanged(with_current(), lambda a: set_client(a, ""))


def test_same_client_id_clears_the_mark() -> None:
    account = trying.canary_sent(with_current(), 1, parts_of(with_current(), 1), "id", STAMP)
    answer = CanaryResult(Verdict.CLIENT_REJECTED, application=account.application("fleet"))
    account = trying.canary_answered(account, 1, answer, STAMP)
    assert account.application("fleet").rejected_at == NOW
    assert_unchanged(account, lambda a: set_client(a, ""))
    assert set_client(account, "id-fleet").application("fleet") == Application("fleet", "id-fleet")


def test_applications_stay_sorted() -> None:
    account = set_client(set_client(with_current(), "1", "zoo"), "2", "ant")
    assert [a.name for a in account.applications] == ["ant", "fleet", "zoo"]


def test_removing_missing_app_is_harmless() -> None:
    assert_unchanged(with_current(), lambda a: registering.application_removed(a, "none", STAMP))


def test_first_password_makes_no_candidate() -> None:
    assert set_password(an_account(), 1).generations == ()


def test_password_makes_a_candidate() -> None:
    account = set_password(with_current(), 2)
    assert only(account.candidates).parts == Parts(secrets={"password": 2})


def test_password_replaces_first_candidate() -> None:
    account = set_password(with_candidate(), 2)
    assert account.generation(1).stage is Stage.REJECTED
    assert only(account.candidates).parts == replace(account.generation(1).parts, secrets={"password": 2})


def test_older_password_is_a_conflict() -> None:
    """Of two concurrent commands, the one that stored first and wrote last gets a conflict."""
    with assert_refused(ConflictError, "password 3"):
        set_password(set_password(with_current(), 3), 2)


def test_skipped_slots_are_doomed() -> None:
    assert set_password(with_current(), 5).doomed_secrets == {"password:2", "password:3", "password:4"}
    assert set_password(an_account(), 3).doomed_secrets == {"password:1", "password:2"}


def test_unused_password_is_doomed() -> None:
    assert set_password(set_password(an_account(), 1), 2).doomed_secrets == {"password:1"}


def test_used_password_is_not_doomed() -> None:
    assert set_password(with_new_password(with_current()), 3).doomed_secrets == frozenset()


def test_a_new_password_closes_the_breaker() -> None:
    account = trying.canary_sent(with_current(), 1, parts_of(with_current(), 1), "id", STAMP)
    account = trying.canary_answered(account, 1, CanaryResult(Verdict.LOGIN_REJECTED), STAMP)
    assert account.breaker
    assert set_password(account, 2).breaker is None


@pytest.mark.parametrize("again", [lambda a: set_password(a, 3), lambda a: set_trust(a, "server-ca-3")])
def test_same_part_replaces_its_candidate(again: object) -> None:
    """A command killed after its write and run again leaves one candidate, not two that no machine can join."""
    account = set_trust(set_password(with_current(), 2), "server-ca-2")
    after = again(account)  # type: ignore[operator]
    assert len(after.candidates) == 2
    assert {name for c in after.candidates for name in c.parts.names} == {"secret password", "trust"}
    assert_sound(after)


def test_part_is_replaced_after_promotion() -> None:
    account = moving.moved(with_answer(with_new_password(with_current())), 3, Move.PROMOTE, STAMP)
    after = set_password(account, 3)
    assert after.generation(2).stage is Stage.REJECTED
    assert only(after.candidates).parts == Parts(secrets={"password": 3})


def test_other_candidates_stay() -> None:
    account = set_password(with_answer(with_current()), 2)
    assert [g.number for g in account.candidates] == [2, 3]


def test_joined_candidate_keeps_certificate() -> None:
    account = moving.joined(set_password(with_answer(with_current()), 2), 2, 3, STAMP)
    candidate = only(set_password(account, 3).candidates)
    assert candidate.parts == replace(account.generation(2).parts, secrets={"password": 3})


def test_current_trust_makes_no_candidate() -> None:
    account = set_trust(set_trust(with_current(), "server-ca-2"), "server-ca")
    assert [g.parts.trust for g in account.candidates] == [ca_set_named("server-ca-2").ref]


def test_rejected_trust_can_be_set_again() -> None:
    account = set_trust(with_current(), "server-ca-2")
    account = moving.moved(account, 2, Move.REJECT, STAMP)
    assert only(set_trust(account, "server-ca-2").candidates).parts.trust == ca_set_named("server-ca-2").ref


def test_accepting_a_ca_makes_no_candidate() -> None:
    assert accept(with_current(), "ca-2").candidates == ()


@pytest.mark.parametrize("hours", [-1, -24 * 400])
def test_clock_changes_only_the_time(hours: int) -> None:
    account = registering.secret_set(with_current(), PASSWORD, 2, Stamp(later(hours=hours), BY))
    assert account.outbox[-1].at == later(hours=hours)
    assert_sound(account)


def test_resumed_account_is_as_before() -> None:
    account = registering.suspended(with_current(), "key stolen", STAMP)
    with pytest.raises(RefusedError, match="suspended since") as refused:
        account.served()
    assert "key stolen" not in refused.value.message + refused.value.hint
    assert account.kept() is account, "rotation goes on"
    account = registering.resumed(account, STAMP)
    assert account.served() is account
    assert_sound(account)
    assert_unchanged(account, lambda a: registering.resumed(a, STAMP))


def test_removed_account_dooms_every_secret() -> None:
    """Those of living generations, of the open request, and the newest that nothing refers to."""
    account = set_password(with_open_request(with_current()), 2)
    after = registering.removed(account, "contract ended", STAMP)
    assert after.doomed_keys == {r.key for r in account.requests}
    assert after.doomed_secrets == {"password:1", "password:2"}
    assert after.open_request is None
    assert {c.pem for c in after.certificates} == {""}
    with assert_refused(RefusedError, "was removed", "contract ended"):
        after.kept()
    with pytest.raises(RefusedError, match="was removed") as refused:
        after.served()
    assert "contract ended" not in refused.value.message + refused.value.hint
