"""`make cluster`: no bundle is lost when Vault's leader is killed, what it prints works, and nothing of it stays."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.test_demo import eventually, left_by, place, processes

__all__ = ["place"]


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.peer("curl")
def test_bundles_outlive_a_leader(place: Mapping[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "broker_demo.cluster", "--keep"]
    with subprocess.Popen(command, cwd=tmp_path, env=place, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        lines: list[str] = []
        while len([line for line in lines if "curl" in line]) < 2:
            lines.append(running.stdout.readline())
            assert lines[-1], "".join(lines)
        said = "".join(lines)
        for curl in (line for line in lines if "curl" in line):
            answer = subprocess.run(["sh", "-c", curl], env=place, capture_output=True, text=True, check=True)
            assert json.loads(answer.stdout)["secrets"] == {"password": "not-a-real-password"}, answer.stdout
        running.send_signal(signal.SIGINT)
        assert "files removed" in running.stdout.read()
    assert running.returncode == 0
    numbers = dict(re.findall(r"^ +(bundles \w+|503\D*|failed) +(\d+)\b", said, re.MULTILINE))
    assert int(numbers["bundles before"]) >= 40
    assert int(numbers["bundles after"]) >= 40
    assert numbers["failed"] == "0", said
    assert "whole" in said
    assert eventually(lambda: not processes(place))
    assert not left_by(said)
