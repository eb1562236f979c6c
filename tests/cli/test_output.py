"""Tables and colours, on terminals of several widths and in none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from broker.cli.output import styled
from tests.support.sources import ROOT
from tests.support.terminal import Terminal

COMMAND = "broker csr submit acme"
TABLE = f"""
from broker.cli.output import show_table
rows = [(name, "1 previous, 2 current", "2027-03-01 (in 95d)", "partner", "{COMMAND}") for name in ("acme", "other")]
show_table(["account", "generations", "expires", "who", "next"], rows)
"""
PATHS = {"PATH": "/usr/bin:/bin"}


def shown(columns: int, tmp_path: Path, **environment: str) -> str:
    command = [sys.executable, "-c", TABLE]
    with Terminal(command, tmp_path, {**PATHS, "PYTHONPATH": str(ROOT), **environment}, columns=columns) as terminal:
        assert terminal.end() == 0
    return terminal.said.replace("\r", "")


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140])
def test_a_table_fits_its_terminal_and_no_word_is_broken(columns: int, tmp_path: Path) -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown(columns, tmp_path)).splitlines()
    assert max(map(len, lines)) <= columns
    assert sum(COMMAND in line for line in lines) == 2
    assert any(line.startswith("│ acme") for line in lines) is (columns >= 100)
    assert any(re.fullmatch("account +acme", line) for line in lines) is (columns < 100)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_none_is_wanted(name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert styled("text", fg="red") == click.style("text", fg="red")
    assert "\x1b" in shown(140, tmp_path)
    monkeypatch.setenv(name, value)
    assert styled("text", fg="red") == "text"
    if name == "NO_COLOR":  # a Terminal is never dumb
        assert "\x1b" not in shown(140, tmp_path, NO_COLOR=value)


def test_one_place_makes_colours() -> None:
    found = [
        path.name for path in (ROOT / "broker").rglob("*.py") if "click.style(" in path.read_text(encoding="utf-8")
    ]
    assert found == ["output.py"]


def test_in_a_pipe_a_table_has_columns_however_wide(tmp_path: Path) -> None:
    environment = {**PATHS, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    ended = subprocess.run(
        [sys.executable, "-c", TABLE], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    head, first, second = ended.stdout.decode().splitlines()
    assert head.index("NEXT") == first.index(COMMAND) == second.index(COMMAND)
