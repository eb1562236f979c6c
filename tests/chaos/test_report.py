"""The report of a chaos run has its results, and the gaps of a partial run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.chaos.report import OUTCOMES, written


def test_report_names_gaps_of_a_partial_run(tmp_path: Path) -> None:
    row = {"command": "init", "points": 4, "codes": {"-9": 4}}
    for fault in OUTCOMES:
        more = {"writes": {"disk": 2}} if fault == "SIGKILL" else {}
        (tmp_path / f"killed-{fault.replace('/', '-')}.json").write_text(json.dumps({**row, "fault": fault, **more}))
    cell = {"command": "status", "fault": "503", "lasting": True, "code": 3}
    (tmp_path / "faults-status.json").write_text(json.dumps({"seed": 4, "whole": 8, "rows": [cell]}))
    assert not written(tmp_path)
    assert "| `init` | 0 | 2 | 0 | 4 |" in (tmp_path / "killed.md").read_text()
    assert "| 503, and stays | 3 |" in (tmp_path / "faults.md").read_text()
    (tmp_path / "killed-SIGTERM.json").unlink()
    (tmp_path / "killed-no space.json").unlink()
    assert written(tmp_path) == ["SIGTERM: init", "no space: init"]


def test_no_run_lacks_everything(tmp_path: Path) -> None:
    assert written(tmp_path) == ["everything"]
