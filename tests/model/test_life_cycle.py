"""The table of phases: its commands exist."""

from __future__ import annotations

import pytest

from broker.model.life_cycle import Phase, Who


@pytest.mark.parametrize("phase", Phase)
def test_whoever_acts_has_a_command(phase: Phase) -> None:
    assert bool(phase.row.command) is (phase.row.who is not Who.NOBODY)
