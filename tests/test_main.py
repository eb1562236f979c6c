"""`python -m broker`: the version before anything is loaded, else a command, with signals handled."""

from __future__ import annotations

import runpy
import signal
import sys
from pathlib import Path

import pytest

from broker import __version__
from broker.cli.exits import CODES
from broker.errors import Kind
from broker.signals import ASKING


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "broker.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["broker", "--version"])


def ended() -> object:
    """Run the module; return its exit code."""
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("broker", run_name="__main__")
    return caught.value.code


def test_the_version_is_printed(typed: None, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("broker", run_name="__main__")
    assert capsys.readouterr() == (f"broker {__version__}\n", "")


def test_a_full_disk_has_its_code(
    typed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert ended() == CODES[Kind.STORAGE_FULL]
    assert "standard output" in capsys.readouterr().err


def test_a_closed_output_is_no_fault(typed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert ended() == 0


def test_a_command_ends_with_its_code(
    typed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["broker", "nonsense"])
    assert ended() == CODES[Kind.INPUT]
    assert "no such command 'nonsense'" in capsys.readouterr().err
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(ASKING)
