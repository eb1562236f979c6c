"""Peers: what a test does without the program it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

TEST = """
import pytest

@pytest.mark.peer(*["no-such-program"])
def test_that_would_pass() -> None:
    pass
"""


@pytest.mark.parametrize(("ci", "outcome"), [({}, "1 skipped"), ({"CI": "true"}, "1 error")])
def test_a_missing_peer_skips_here_and_fails_in_ci(tmp_path: Path, ci: dict[str, str], outcome: str) -> None:
    file = tmp_path / "test_with_a_peer.py"
    file.write_text(TEST)
    clean = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "tests.conftest", file],
        cwd=tmp_path,
        env=clean | ci,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in ended.stdout
    assert "needs no-such-program: sh .ci/peers installs it" in ended.stdout
