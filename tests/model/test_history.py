"""Document and evidence agree, unless the document was changed without the broker."""

from __future__ import annotations

from typing import Any

import pytest

from broker.copies import replace
from broker.model.account import Account, Contacts
from broker.model.chain import Entry
from broker.model.changes import compromising, importing, moving, registering, requesting, trying
from broker.model.changes.registering import AccountSettings
from broker.model.changes.rotating_password import rotation_begun
from broker.model.generation import Closed, Halt, Submission
from broker.model.history import Event, account_state, fold
from broker.model.holdings import ConsumerRecord, Holding
from broker.model.stage import Move, Stage
from broker.model.subject import Subject
from broker.model.verdict import CanaryResult, Verdict
from tests.support.accounts import (
    BY,
    NOW,
    STAMP,
    an_account,
    assert_sound,
    later,
    promoted,
    with_answer,
    with_current,
    with_new_password,
    with_open_request,
    with_overtaken_candidate,
    with_rolled_back,
)


@pytest.mark.parametrize(
    "account",
    [
        an_account(),
        with_open_request(),
        with_current(),
        with_rolled_back(),
        with_overtaken_candidate(),
        moving.joined(with_new_password(with_answer(with_current())), 2, 3, STAMP),
        requesting.closed(with_open_request(), 1, Closed.REJECTED, STAMP),
    ],
)
def test_both_tell_the_same(account: Account) -> None:
    assert_sound(account)


def test_no_entries_give_an_empty_state() -> None:
    assert fold(()).current == 0
    assert fold(an_account().outbox[:1]) == account_state(an_account())


def bypassed(**fields: Any) -> Account:
    """Return an account whose generation 2 was changed by somebody who writes no evidence."""
    account = with_answer(with_current())
    changed = replace(account.generation(2), **fields)
    return replace(account, generations=(account.generations[0], changed))


@pytest.mark.parametrize(
    "account",
    [
        bypassed(stage=Stage.RETIRED),
        bypassed(stage=Stage.REJECTED),
        bypassed(number=3),
        bypassed(parts=with_current().generations[0].parts),
        replace(with_current(), secrets={"password": 7}),
        replace(with_open_request(), requests=()),
        replace(with_current(), generations=()),
        replace(with_current(), subject=Subject((("CN", "X"),))),
        replace(with_current(), contacts=Contacts(partner=("x@evil.example",))),
        replace(with_current(), renew_before="1%"),
        replace(registering.suspended(with_current(), "stolen", STAMP), suspended=None),
        replace(an_account(), removed=Halt(NOW, "over")),
    ],
    ids=[
        "retired",
        "rejected",
        "renumbered",
        "other parts",
        "another password",
        "no request",
        "no generation",
        "subject",
        "contacts",
        "renewal",
        "suspended",
        "removed",
    ],
)
def test_change_without_broker_shows(account: Account) -> None:
    assert fold(account.outbox) != account_state(account)


def edited(account: Account, what: Event, **facts: object) -> list[Entry]:
    entries = list(account.outbox)
    at = max(n for n, e in enumerate(entries) if e.what == what.value)
    kept = {k: v for k, v in {**entries[at].facts, **facts}.items() if v is not None}
    entries[at] = replace(entries[at], facts=kept)  # type: ignore[arg-type]
    return entries


@pytest.mark.parametrize(
    "entries",
    [
        edited(with_rolled_back(), Event.GENERATION_MOVED, move="reject", stage="rejected"),
        edited(with_rolled_back(), Event.GENERATION_MOVED, move="teleport"),
        edited(with_rolled_back(), Event.GENERATION_MOVED, generation=9),
        edited(with_rolled_back(), Event.GENERATION_MOVED, generation=None),
        edited(with_rolled_back(), Event.GENERATION_MOVED, generation="two"),
        edited(with_rolled_back(), Event.GENERATION_MOVED, certificate="f" * 64),
        edited(with_rolled_back(), Event.CANARY_SENT, password=9),
        edited(with_rolled_back(), Event.GENERATION_BORN, certificate=None),
        edited(with_rolled_back(), Event.REQUEST_CLOSED, closed="lost"),
        [replace(with_current().outbox[0], what="dreamt")],
        with_rolled_back().outbox[-1:],
    ],
)
def test_forbidden_evidence_is_a_value_error(entries: list[Entry]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        fold(entries)


def test_every_event_is_recorded() -> None:
    account = compromising.compromised(with_rolled_back(), "stolen", STAMP, suspend=False)
    account = compromising.certificate_revoked(promoted(account, 2), 1, "", STAMP)
    account = registering.secret_set(with_new_password(account), "hmac", 1, STAMP)
    account = rotation_begun(registering.application_removed(account, "fleet", STAMP), STAMP)
    account = registering.account_set(account, AccountSettings(renew_before="30d"), STAMP)
    account = registering.snoozed(account, later(days=300), "holidays", STAMP)
    account = registering.snooze_ended(account, STAMP)
    account = registering.subject_set(account, Subject((("CN", "MZP0000002"),)), STAMP)
    account = registering.resumed(registering.suspended(account, "stolen", STAMP), STAMP)
    account = trying.canary_sent(account, 3, account.parts_of(account.generation(3)), "id", STAMP)
    account = trying.canary_answered(account, 1, CanaryResult(Verdict.LOGIN_REJECTED), STAMP)
    account = trying.breaker_reset(account, "unlocked", STAMP)
    account = with_open_request(moving.moved(account, 3, Move.REJECT, STAMP))
    number = account.requests[-1].number
    account = importing.copies_noted(account, number, ["web-1"], STAMP)
    account = importing.copy_gone(account, "web-1", "", STAMP)
    account = requesting.submitted(account, number, Submission(NOW, "hand"), by=BY)
    account = requesting.finding_accepted(account, account.certificates[-1], "certificate.purpose", "why", STAMP)
    holding = Holding(account.name, "fleet", "direct", 1, "l1", NOW, NOW)
    account = registering.lease_revoked(
        account, (ConsumerRecord("e-1", "a"), holding), "holding", "host is gone", STAMP
    )
    account = registering.removed(account, "over", STAMP)
    assert {e.what for e in account.outbox} == {what.value for what in Event}
    assert_sound(account)
