"""Parameters of which a faster target takes a sample: `make test` those without `deep`, test-quick without `slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

__all__ = ["sampled"]


def sampled(
    values: Iterable[object], *, every: int, start: int = 0, rest: pytest.MarkDecorator = pytest.mark.deep
) -> list[ParameterSet]:
    """Return `values` as parameters, all but each `every`-th marked `rest`. A tuple is one value a name."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=marks)
        for number, value in enumerate(values, start)
        for marks in [[rest] if number % every else []]
    ]
