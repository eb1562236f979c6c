"""The change document: what a reader that saw some of it missed."""

from __future__ import annotations

from functools import reduce

import pytest

from broker.model.recent_changes import KEPT, RecentChanges


def after(*paths: str) -> RecentChanges:
    return reduce(RecentChanges.with_, paths, RecentChanges())


@pytest.mark.parametrize(("seen", "missed"), [(0, "ab"), (1, "ab"), (2, "a"), (3, ""), (4, ""), (None, None)])
def test_a_reader_learns_what_it_missed(seen: int | None, missed: str | None) -> None:
    assert after("a", "b", "a").since(seen) == (None if missed is None else frozenset(missed))


def test_who_missed_too_much_looks_at_everything() -> None:
    found = after(*map(str, range(2 * KEPT)))
    assert len(found.paths) == KEPT
    assert found.since(KEPT) == frozenset(found.paths)
    assert found.since(KEPT - 1) is None
