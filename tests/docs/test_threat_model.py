"""Every claim of the threat model names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from broker.model.role import Role
from tests.support.sources import ROOT, tree

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


@pytest.mark.slow
def test_named_tests_exist_and_run() -> None:
    """And `make test` runs them: each name is a test's, and only a missing program or right skips it."""
    assert len(NAMED) > 100
    assert not [f"{file}::{name}" for file, name in NAMED if not is_run(file, name)]


def is_run(file: str, name: str) -> bool:
    module = tree(ROOT / file)
    found = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    if name not in found or not name.startswith("test_") or not Path(file).name.startswith("test_"):
        return False
    marks = [ast.unparse(mark) for mark in found[name].decorator_list]
    marks += [ast.unparse(n) for n in module.body if isinstance(n, ast.Assign) and "pytestmark" in ast.unparse(n)]
    return not any(re.search(r"\b(skip\w*|xfail|deep|chaos|fixture)\b", mark) for mark in marks)


def test_every_claim_in_a_table_names_a_test() -> None:
    assert len(tables()) >= 10
    assert not [row for rows in tables() for row in rows if "::test_" not in row.rpartition(" | ")[2]]


def test_theft_of_every_role_is_described() -> None:
    assert not [role.value for role in Role if f"\n| `{role.value}` |" not in PAGE]
