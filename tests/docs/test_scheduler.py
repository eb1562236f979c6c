"""docs/scheduler.md: its commands are typed, and its tables are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from broker.compose.sweeping import _MEANINGS, _NOTIFIED
from broker.scheduling.decision import Do
from tests.e2e.test_scheduler_process import daemon
from tests.support.system import System

PAGE: Final = (Path(__file__).parents[2] / "docs" / "scheduler.md").read_text(encoding="utf-8")
COMMANDS: Final = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^broker .*$", PAGE, re.MULTILINE)]


@pytest.mark.slow
def test_its_commands_run(system: System) -> None:
    system.candidate()
    dry, once, stays = COMMANDS
    assert "would be done" in system.ok(*dry).out
    assert "canary" in system.ok(*once).out
    assert stays == ["rotation", "run"]
    with daemon(system):
        pass


def test_every_step_is_in_its_table() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE)) == {do.value for do in Do}


def test_every_number_is_in_its_table() -> None:
    said = re.findall(r"(?:credential_broker_(?:rotation|notify)|…)_(\w+)", PAGE)
    for name in (*_MEANINGS, *_NOTIFIED):
        assert name.partition("_")[2] in said, name
