"""The stand-in's page is typed into a shell, from its first command to its last."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.peer("curl")
@pytest.mark.peer("openssl")
def test_stand_in_page_fetches_fleets(tmp_path: Path) -> None:
    script = "\n".join(_BLOCK.findall((ROOT / "docs" / "standin.md").read_text(encoding="utf-8")))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-ec", f"trap 'kill %1; wait' EXIT\n{script}"],
        cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert '"fleets"' in ended.stdout
    assert not (tmp_path / "partner" / "standin.json").exists()
