"""Parameters of which `make test` takes a sample and `make test-all` takes all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

__all__ = ["sampled"]


def sampled(values: Iterable[object], *, every: int, start: int = 0) -> list[ParameterSet]:
    """Return `values` as parameters, all but each `every`-th marked `deep`. A tuple is one value a name."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=marks)
        for number, value in enumerate(values, start)
        for marks in [[pytest.mark.deep] if number % every else []]
    ]
