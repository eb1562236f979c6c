"""Recipients: who is notified, who is dead, when something is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from broker.copies import replace
from broker.model.account import Contacts
from broker.model.recipient import (
    FAILING,
    REMEMBERED,
    WEBHOOK,
    Digest,
    Recipient,
    Recipients,
    nobody_notified,
    oldest_test,
    partner_of,
    team_of,
)

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
CONTACTS = Contacts(("first@p.example", "second@p.example", "third@p.example"), ("ops@a.example", "anna@a.example"))


def with_dead(*names: str) -> Recipients:
    found = Recipients()
    for name in names:
        found = found.change(name, lambda r: r.died("no such user", NOW))
    return found


@pytest.mark.parametrize(("dead", "count"), [((), 1), (("first@p.example",), 2), (CONTACTS.partner, 3)])
def test_after_a_dead_contact_comes_the_next(dead: tuple[str, ...], count: int) -> None:
    assert partner_of(CONTACTS, with_dead(*dead)) == CONTACTS.partner[:count]


def test_a_dead_address_gets_alerts_only() -> None:
    dead = with_dead("ops@a.example")
    assert team_of(CONTACTS, dead, alert=True) == CONTACTS.team
    assert team_of(CONTACTS, dead, alert=False) == ("anna@a.example",)


def test_nobody_is_notified() -> None:
    assert not nobody_notified(CONTACTS, with_dead("ops@a.example"), mail=True, webhook=False)
    assert nobody_notified(CONTACTS, with_dead(*CONTACTS.team), mail=True, webhook=False)
    assert nobody_notified(Contacts(), Recipients(), mail=True, webhook=False)
    assert nobody_notified(CONTACTS, Recipients(), mail=False, webhook=False)
    assert not nobody_notified(Contacts(), Recipients(), mail=True, webhook=True)
    assert nobody_notified(Contacts(), Recipients((Recipient(WEBHOOK, failures=FAILING),)), mail=True, webhook=True)


def test_only_a_test_by_name_revives() -> None:
    dead = Recipient("a@x").died("bounced", NOW)
    assert dead.took("m1", NOW).dead_since == NOW
    assert dead.tested(NOW, by_name=False).dead_since == NOW
    assert dead.tested(NOW, by_name=True).dead_since is None


def test_failures_wait_longer_each_time() -> None:
    one, waits = Recipient("a@x"), []
    for _ in range(9):
        one = one.failed("the server is down", NOW)
        assert one.retry_at
        waits.append((one.retry_at - NOW) / timedelta(minutes=5))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 72, 72]
    assert not one.ready(NOW)
    assert one.ready(NOW + timedelta(hours=6))
    assert one.ready(NOW - timedelta(days=365))  # the clock was a year ahead when it failed
    assert one.took("m", NOW).ready(NOW)


@pytest.mark.parametrize(
    ("hour", "last", "due"),
    [
        (5, None, False),
        (6, None, True),
        (23, Digest("n", NOW, (), sent=True), False),
        (23, Digest("n", NOW - timedelta(days=1), (), sent=True), True),
        (23, Digest("n", NOW - timedelta(days=1), (), sent=False), False),  # the old one goes first
    ],
)
def test_one_digest_a_day(hour: int, last: Digest | None, due: bool) -> None:
    assert Recipient("a@x", digest=last).digest_due(NOW.replace(hour=hour)) is due


def test_a_fixed_digest_is_not_replaced() -> None:
    first, second = (Digest(n, NOW, (n,)) for n in "ab")
    one = Recipient("a@x").with_digest(first, NOW)
    assert one.with_digest(second, NOW + timedelta(days=5)) == one
    after = one.digested(NOW + timedelta(days=1))
    assert after.digest == replace(first, at=NOW + timedelta(days=1), sent=True)
    assert after.with_digest(second, NOW + timedelta(days=1)) == after
    assert after.with_digest(second, NOW + timedelta(days=2)).digest == second


def test_a_bounce_needs_an_id_of_ours() -> None:
    found = Recipients()
    for number in range(REMEMBERED + 1):
        found = found.change("a@x", partial(Recipient.took, message_id=f"m{number}", now=NOW))
    assert found.owner_of(f"m{REMEMBERED}") == "a@x"
    assert found.owner_of("m0") == ""
    assert found.owner_of("made-up") == ""


def test_the_oldest_test_counts() -> None:
    found = Recipients((Recipient("a@x", tested_at=NOW), Recipient("b@x", tested_at=NOW - timedelta(days=3))))
    assert oldest_test(["a@x", "b@x"], found) == NOW - timedelta(days=3)
    assert oldest_test(["a@x", "new@x"], found) is None
