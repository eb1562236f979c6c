"""Every claim of the threat model names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from broker.vault.policies import Role
from tests.support.sources import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
SHOWN = re.compile(r"^\|.*\bshown by \|$")


def tables() -> list[list[str]]:
    """Return the rows of each table that says what shows its claims."""
    lines, found = PAGE.splitlines(), []
    for number, line in enumerate(lines):
        if SHOWN.match(line):
            end = next(n for n in range(number, len(lines)) if not lines[n].startswith("|"))
            found.append(lines[number + 2 : end])
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_that_a_claim_names_is_there(file: str, name: str) -> None:
    """And pytest runs it: its name is a test's, and nothing skips it but a missing program or right."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert Path(file).name.startswith("test_")
    assert name.startswith("test_")
    marks = [ast.unparse(mark) for mark in found[name].decorator_list]
    marks += [ast.unparse(n) for n in tree.body if isinstance(n, ast.Assign) and "pytestmark" in ast.unparse(n)]
    assert not [mark for mark in marks if re.search(r"\b(skip\w*|xfail|chaos|fixture)\b", mark)]


def test_every_claim_in_a_table_names_a_test() -> None:
    assert len(tables()) >= 10
    assert not [row for rows in tables() for row in rows if "::test_" not in row.rpartition(" | ")[2]]


def test_what_every_roles_theft_costs_is_said() -> None:
    assert not [role.value for role in Role if f"\n| `{role.value}` |" not in PAGE]
