"""The table of phases is complete, and its commands exist."""

from __future__ import annotations

import pytest

from broker.model.life_cycle import PHASES, Phase, Who


def test_every_phase_has_a_row_in_order() -> None:
    assert list(PHASES) == list(Phase)


@pytest.mark.parametrize("phase", Phase)
def test_whoever_acts_has_a_command(phase: Phase) -> None:
    assert bool(phase.row.command) is (phase.row.who is not Who.NOBODY)
