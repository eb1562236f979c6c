"""The demo's place: what it leaves behind."""

from __future__ import annotations

import shutil

import pytest
from broker_demo.runner import Demo, DemoError


@pytest.fixture
def demo() -> Demo:
    made = Demo()
    (made.directory / "vault").mkdir()
    (made.directory / "vault" / "unseal.key").write_text("secret")
    return made


def test_a_closed_stage_leaves_nothing(demo: Demo) -> None:
    demo.close()
    assert not demo.directory.exists()


def test_a_renamed_stage_keeps_no_file(demo: Demo) -> None:
    away = demo.directory.rename(demo.directory.with_name(f"{demo.directory.name}-away"))
    demo.close()
    assert list(away.iterdir()) == []
    away.rmdir()


def test_a_stage_says_what_stays(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(DemoError, match="vault cannot be removed"):
            demo.close()
    shutil.rmtree(demo.directory)
