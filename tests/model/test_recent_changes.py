"""The change document: what a reader that saw some of it missed, and which changes it hears of."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import pytest

from broker.copies import replace
from broker.model.account import Account
from broker.model.changes import moving, registering, rotating_password
from broker.model.recent_changes import KEPT, RecentChanges, concerns_consumers
from broker.model.stage import Move
from tests.support.accounts import NOW, STAMP, with_answer, with_current


def after(*paths: str) -> RecentChanges:
    return reduce(lambda recent, path: recent.done(path, 1), paths, RecentChanges())


@pytest.mark.parametrize(("seen", "missed"), [(0, "ab"), (1, "ab"), (2, "a"), (3, ""), (4, ""), (None, None)])
def test_a_reader_learns_what_it_missed(seen: int | None, missed: str | None) -> None:
    assert after("a", "b", "a").since(seen) == (None if missed is None else frozenset(missed))


def test_who_missed_too_much_looks_at_everything() -> None:
    found = after(*map(str, range(2 * KEPT)))
    assert len(found.paths) == KEPT
    assert found.since(KEPT) == frozenset(found.paths)
    assert found.since(KEPT - 1) is None


def test_only_replaced_version_is_unannounced() -> None:
    twice = RecentChanges().announced("a", 5).announced("b", 1).announced("a", 4)
    assert twice.pending == {"a": 5, "b": 1}
    assert twice.done("a", 4).pending == {"a": 5, "b": 1}
    assert twice.done("a", 5).pending == {"b": 1}
    assert not twice.number


CHANGES: list[tuple[str, Callable[[Account], Account], bool]] = [
    ("a first client_id", lambda a: registering.application_set(a, "new", "id-new", STAMP), True),
    ("another client_id", lambda a: registering.application_set(a, "fleet", "another", STAMP), False),
    ("an application", lambda a: registering.application_set(a, "new", "", STAMP), True),
    ("a suspension", lambda a: registering.suspended(a, "stolen", STAMP), True),
    ("a promotion", lambda a: moving.moved(with_answer(a), 2, Move.PROMOTE, STAMP), True),
    ("a password", lambda a: registering.secret_set(a, "password", 2, STAMP), False),
    ("a step of a password rotation", lambda a: rotating_password.rotation_begun(a, STAMP), False),
    ("a candidate", with_answer, False),
    ("its evidence", lambda a: moving.settled(a, a.outbox, frozenset(), frozenset()), False),
    ("a rejected client_id", lambda a: replace(a, applications=(replace(a.applications[0], rejected_at=NOW),)), False),
]


@pytest.mark.parametrize(("change", "heard"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_services_hear_of_what_bundles_depend_on(change: Callable[[Account], Account], heard: bool) -> None:
    account = with_current()
    assert concerns_consumers(account, change(account)) is heard
    assert not concerns_consumers(account, account)
