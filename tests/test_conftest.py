"""Tests without a program or right that they need, and leftovers of tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import hear_signals
from tests.support.sources import ROOT

pytestmark = pytest.mark.slow

TEST = """
import pytest
from tests import conftest

conftest.RIGHTS["fly"] = lambda: False

@pytest.mark.{mark}
def test_that_would_pass() -> None:
    pass
"""


LEAVING = """
import os, subprocess, sys, tempfile
from tests.support import leftovers

leftovers._PATIENCE = 1

def test_that_leaves_something():
    directory = tempfile.mkdtemp()
    {more}
"""
PROCESS = 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], cwd=directory)'


def session_of(file: Path, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the tests in `file` with our conftest."""
    clean = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "tests.conftest", file],
        cwd=file.parent,
        env=clean | changes,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("ci", "outcome"), [({}, "1 skipped"), ({"CI": "true"}, "1 error")])
@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('peer(*["no-such-program"])', "needs no-such-program: sh .ci/peers installs it"),
        ('rights("fly")', "needs the right to fly: run it as root"),
    ],
)
def test_missing_need_skips_or_fails_in_ci(
    tmp_path: Path, ci: dict[str, str], outcome: str, mark: str, message: str
) -> None:
    file = tmp_path / "test_that_lacks_something.py"
    file.write_text(TEST.format(mark=mark))
    ended = session_of(file, ci)
    assert outcome in ended.stdout
    assert message in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"), [("", "broker-left-"), (PROCESS, "process "), ("os.rmdir(directory)", "")]
)
def test_leftovers_fail_the_session(tmp_path: Path, more: str, message: str) -> None:
    file = tmp_path / "test_that_leaves.py"
    file.write_text(LEAVING.format(more=more).replace("mkdtemp()", 'mkdtemp(prefix="broker-left-")'))
    ended = session_of(file, {"TMPDIR": str(tmp_path)})
    assert ended.returncode == bool(message), ended.stdout
    assert message in ended.stdout.partition("left behind:")[2]


def test_ignored_signals_are_heard_in_tests() -> None:
    """A suite that was started by `nohup make test &` runs as any other."""
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        hear_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)  # passes: the run goes on
        ended = subprocess.run(["sh", "-c", "kill -HUP $$"], check=False)
        assert ended.returncode == -signal.SIGHUP
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
