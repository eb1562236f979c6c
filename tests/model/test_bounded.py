"""A dictionary that drops its oldest entry."""

from __future__ import annotations

from broker.model.bounded import Bounded


def test_the_oldest_goes() -> None:
    kept: Bounded[str, int] = Bounded(2)
    for number, key in enumerate("abac"):
        kept[key] = number
    assert kept == {"a": 2, "c": 3}
