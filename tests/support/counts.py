"""Counts of the long tests (histories, kill points, faults, mutants), and the last lines that print them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

__all__ = ["TALLY"]

TALLY: Final[Counter[str]] = Counter()  # of this process; the last lines add up those of all


@pytest.fixture(autouse=True)
def _counted(request: pytest.FixtureRequest) -> Iterator[None]:
    before = Counter(TALLY)
    yield
    request.node.user_properties.extend((TALLY - before).items())  # travels with the report, from xdist's workers too


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counted: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                counted.update(dict(report.user_properties))
    for what, number in sorted(counted.items()):
        terminalreporter.write_line(f"{number} {what}")
