"""`broker serve --dev` as a process: its lines work as they are printed, and nothing of it stays."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from broker_demo import dev, steps

from broker.cli.output import note
from tests.e2e.test_demo import BROKER, eventually, left_by, place, processes
from tests.support.console import inside

__all__ = ["place"]


@pytest.fixture
def running(place: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A service for a laptop that has just been started."""
    command = [BROKER, "serve", "--dev", "--listen", "127.0.0.1:0", "--health", ""]
    with subprocess.Popen(command, env=place, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        yield process
        process.terminate()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.peer("curl")
def test_its_lines_work_as_printed(running: subprocess.Popen[str], place: Mapping[str, str]) -> None:
    assert running.stderr
    lines = [running.stderr.readline()]
    while lines[-1] and "Ctrl-C" not in lines[-1]:
        lines.append(running.stderr.readline())
    curl = next((line for line in lines if line.startswith("  curl")), "")
    assert curl, lines
    assert ("X-Vault-Token" in curl, "-H @/" in curl) == (False, True)
    answer = subprocess.run(["sh", "-c", curl], env=place, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["secrets"] == {"password": "not-a-real-password"}, answer.stdout
    by_exec = next(line for line in lines if "broker exec" in line).replace(" broker ", f" {BROKER} ")
    shown = subprocess.run(["sh", "-c", by_exec], env=place, capture_output=True, text=True, check=True)
    assert "PARTNER_KEY=" in shown.stdout
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 0
    rest = running.stderr.read()
    assert "everything is removed" in rest
    assert re.search(r"info +request .*status=201", rest), rest
    assert eventually(lambda: not processes(place))
    assert not left_by(curl)
    assert not list(Path(place["HOME"]).iterdir())


@pytest.mark.parametrize(
    ("address", "why"), [("0.0.0.0:1", "is not loopback"), ("https://127.0.0.1:0", "needs a certificate")]
)
def test_an_address_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, why: str) -> None:
    monkeypatch.setattr(dev, "Demo", lambda: note("begun"))
    ended = inside(["serve", "--dev", "--listen", address], home=tmp_path, environment={"HOME": str(tmp_path)})
    assert (ended.code, why in ended.err, "starting" in ended.err, "begun" in ended.err) == (2, True, False, False)


def test_missing_stand_in_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "broker_demo.dev", None)
    ended = inside(["serve", "--dev"], home=tmp_path, environment={"HOME": str(tmp_path)})
    assert (ended.code, "pip install '.[server,embedded]' ./standin" in ended.err) == (2, True)


def test_its_token_is_replaced_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, demo = itertools.count(1), Mock(directory=tmp_path)
    monkeypatch.setattr(dev, "_RENEWED", 0.01)
    monkeypatch.setattr(steps, "enrol", lambda _: (tmp_path / "reporting.token").write_text(f"s.{next(tokens)}\n"))
    with dev._fresh_token(demo) as header:
        assert header.stat().st_mode & 0o777 == 0o600
        while header.read_text() in ("X-Vault-Token: s.1\n", "X-Vault-Token: s.2\n"):
            pass
        assert header.read_text().startswith("X-Vault-Token: s.")
