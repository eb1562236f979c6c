"""Errors of a base installation for commands that need an extra."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from broker.cli.main import EXTRAS
from tests.support.sources import ROOT

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from broker.cli.main import run
sys.exit(run(sys.argv[2:]))
"""


def without(module: str, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `broker WORDS` where `module` is not installed."""
    environment = {"HOME": str(home), "VAULT_ADDR": "unix:///nowhere/vault.sock"}
    command = [sys.executable, "-c", WITHOUT, module, *words]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("module", ["stamina"])
def test_missing_extra_has_an_install_hint(module: str, tmp_path: Path) -> None:
    ended = without(module, "status", "-o", "json", home=tmp_path)
    assert ended.returncode == 2
    assert f"needs the extra server, which is not installed: {module} is missing" in ended.stderr
    assert "hint: in a checkout: pip install '.[server]'" in ended.stderr
    assert json.loads(ended.stdout)["code"] == "input"


def test_missing_module_of_ours_is_a_fault(tmp_path: Path) -> None:
    ended = without("broker.compose", "status", home=tmp_path)
    assert ended.returncode == 1
    assert "a fault in the broker itself" in ended.stderr


def test_every_named_extra_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) <= {*project["optional-dependencies"], "demo"}  # the demo comes with the stand-in
