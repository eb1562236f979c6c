"""Two years of rotation through people: nothing lost, no failed request, nobody surprised.

`CHAOS_SEED=17 make chaos ARGS='-k two_years'` takes another course. The seed is printed if it fails.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.two_years import two_years
from tests.chaos.years_partner import Manner
from tests.support.counts import TALLY
from tests.support.vault import TestVault

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("accounts", "days"), [(8, 110), pytest.param(20, 731, marks=pytest.mark.chaos)], ids=["months", "two-years"]
)
def test_no_request_fails_in_two_years(vault: TestVault, tmp_path: Path, accounts: int, days: int) -> None:
    with two_years(vault, tmp_path, seed=SEED, accounts=accounts) as years:
        years.run(timedelta(days=days))
        wrong = [*years.wrong, *years.faults()]
        assert not wrong, f"CHAOS_SEED={SEED}\n" + "\n".join(wrong[:20])
        missing = [manner.value for manner in Manner if not years.team.partner.seen[manner]]
        assert not missing, f"CHAOS_SEED={SEED}: nothing of this kind happened: {missing}"
        calls = sum((reader.calls for reader in years.readers.values()), start=years.seen.copy())
        TALLY["calls of consumers, in simulated years"] += calls["answered"]
        assert calls["expired"] < calls["answered"] / 10

        TALLY["simulated days of an account"] += accounts * days
        assert not years.team.partner.standin.crashes
