"""bench/numbers counts what its docstring says, in any checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

CODE = '''
"""A docstring."""
import json  # counted

# a comment
def command(a, b, c, d, e, f):
    """Another."""
    import os

    def inner():
        import re

        return """two
lines"""


@noun.command("set")
def set_application(self, a, b, c, d, e, f): ...


class Word:
    def method(self, a, b, c, d, e): ...
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "broker").mkdir()
    for room in ("standin", "tests"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "code.py").write_text("def f(): ...\n")
    (tmp_path / "broker" / "code.py").write_text(CODE)
    (tmp_path / "broker" / "untracked.py").write_text("not Python: not read\n")
    (tmp_path / "CHANGELOG.md").write_text("broker app set\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    added = ("broker/code.py", "standin", "tests", "CHANGELOG.md")
    for words in (["init", "-q"], ["add", *added], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_a_checkout_is_counted(checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "numbers", checkout], capture_output=True, text=True, check=True
    )
    counted = dict(re.split(" {2,}", line, maxsplit=1) for line in done.stdout.splitlines())
    assert counted["product: files"] == "1"
    assert counted["product: code lines"] == "11"
    assert counted["product: functions"] == "4"
    assert counted["product: functions of 6 or more parameters"] == "1"
    assert counted["product: imports inside functions"] == "2"
    assert counted["stand-in and demo: functions"] == "1"
    assert counted["files that name app set"] == "2"


def test_another_directory_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "numbers", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "is not a checkout" in done.stderr
