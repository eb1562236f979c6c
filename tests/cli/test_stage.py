"""The demo's place: what it leaves behind."""

from __future__ import annotations

import shutil

import pytest
from broker_demo.runner import Stage, StageError


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    (made.directory / "vault").mkdir()
    (made.directory / "vault" / "unseal.key").write_text("secret")
    return made


def test_a_closed_stage_leaves_nothing(stage: Stage) -> None:
    stage.close()
    assert not stage.directory.exists()


def test_a_renamed_stage_keeps_no_file(stage: Stage) -> None:
    away = stage.directory.rename(stage.directory.with_name(f"{stage.directory.name}-away"))
    stage.close()
    assert list(away.iterdir()) == []
    away.rmdir()


def test_a_stage_says_what_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(StageError, match="vault cannot be removed"):
            stage.close()
    shutil.rmtree(stage.directory)
