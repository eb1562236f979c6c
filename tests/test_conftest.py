"""Peers and rights: what a test does without the program, or the right, that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

TEST = """
import pytest
from tests import conftest

conftest.RIGHTS["fly"] = lambda: False

@pytest.mark.{mark}
def test_that_would_pass() -> None:
    pass
"""


@pytest.mark.parametrize(("ci", "outcome"), [({}, "1 skipped"), ({"CI": "true"}, "1 error")])
@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ('peer(*["no-such-program"])', "needs no-such-program: sh .ci/peers installs it"),
        ('rights("fly")', "needs the right to fly: run it as root"),
    ],
)
def test_what_is_missing_skips_here_and_fails_in_ci(
    tmp_path: Path, ci: dict[str, str], outcome: str, mark: str, told: str
) -> None:
    file = tmp_path / "test_that_lacks_something.py"
    file.write_text(TEST.format(mark=mark))
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
    assert told in ended.stdout
