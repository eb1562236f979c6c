"""The page of kills is of a whole run: every command at every fault that can befall it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.chaos.kill_harness import COMMANDS
from tests.support.sources import ROOT

TEXT = (ROOT / "docs" / "reference" / "faults-killed.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults_killed", ROOT / "docs" / "faults_killed.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_of_a_whole_run(writer: ModuleType) -> None:
    rows = writer.rows_of(TEXT)
    assert not writer.missing(rows), "make chaos, then make chaos-pages"
    assert {row["command"] for row in rows} == {c.name for c in COMMANDS} | set(writer.SERVERS)


def test_a_partial_run_writes_no_page(
    writer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(writer, "PAGE", page)
    row = {"command": "init", "points": 4, "codes": {"-9": 4}}
    for fault in writer.OUTCOMES:
        more = {"writes": {"disk": 2}} if fault == "SIGKILL" else {}
        kept = tmp_path / f"killed-{fault.replace('/', '-')}.json"
        kept.write_text(json.dumps({**row, "fault": fault, **more}))
    assert writer.main([str(tmp_path)]) == 0
    whole = page.read_text()
    assert not writer.missing(writer.rows_of(whole))
    (tmp_path / "killed-SIGTERM.json").unlink()
    (tmp_path / "killed-no space.json").unlink()
    assert writer.main([str(tmp_path)]) == 1
    assert "\n  SIGTERM: init\n  no space: init\n" in capsys.readouterr().err
    assert page.read_text() == whole


def test_no_run_at_all_writes_no_page(writer: ModuleType, tmp_path: Path) -> None:
    assert writer.main([str(tmp_path)]) == 1
