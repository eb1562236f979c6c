"""Two years of rotation through people: nothing lost, no failed request, nobody surprised.

`CHAOS_SEED=17 make chaos ARGS='-k two_years'` takes another course. The seed is printed if it fails.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.two_years import two_years
from tests.chaos.years_partner import Manner
from tests.support.counts import TALLY
from tests.support.vault import TestVault

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)
HAPPENS: Final = ("a session swapped", "a consumer was late", "nobody runs the scheduler for days")  # at least once
DONE: Final = tuple(f"{deed} done" for deed in ("draft", "submit", "promote", "retire", "prove"))


def live(vault: TestVault, directory: Path, *, lifetimes: Sequence[int], days: int, hours: int) -> None:
    with two_years(vault, directory, seed=SEED, lifetimes=lifetimes) as years:
        years.run(timedelta(days=days), step=timedelta(hours=hours))
        seen, calls = years.seen, sum((reader.calls for reader in years.readers.values()), start=years.seen.copy())
        report = f"CHAOS_SEED={SEED}: {calls} {years.team.refused}"
        wrong = [*years.wrong, *years.faults(), *years.team.partner.standin.crashes]
        assert not wrong, report + "\n" + "\n".join(wrong[:20])
        missing = [manner.value for manner in Manner if not years.team.partner.seen[manner]]
        missing += [name for name in (*HAPPENS, *DONE) if not seen[name]]
        missing += [f"hook {event}-done" for event in ("promote", "retire", "submit") if not seen[f"hook {event}-done"]]
        assert not missing, f"{report}: nothing of this kind happened: {missing}"
        assert calls["expired"] < calls["answered"] / 10, report
        assert years.mailbox.letters, report
        TALLY["simulated days of an account"] += len(lifetimes) * days
        TALLY["calls of consumers, in simulated years"] += calls["answered"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_fails_in_three_months(vault: TestVault, tmp_path: Path) -> None:
    """A short course of the two years. Everything that can happen happens in it."""
    live(vault, tmp_path, lifetimes=(30, 30, 60, 90, 365), days=90, hours=12)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_no_request_fails_in_two_years(vault: TestVault, tmp_path: Path) -> None:
    lifetimes = (*(30, 60, 90, 180, 365, 730, 1095) * 2, 30, 60, 90, 180, 365, 1095)
    live(vault, tmp_path, lifetimes=lifetimes, days=731, hours=36)
