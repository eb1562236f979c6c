"""Notices to the service manager: where they go, and what happens if nobody is there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from broker.systemd import State, report
from broker.telemetry import log


@pytest.mark.parametrize("abstract", [False, True])
def test_a_notice_arrives(tmp_path: Path, abstract: bool) -> None:
    address = f"@broker-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        report(State.READY, address)
        assert manager.recv(100) == b"READY=1"


def test_a_line_is_one_line(tmp_path: Path) -> None:
    """A message of others in it sets no other variable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        report("acme: denied\nMAINPID=1" + "x" * 1000, str(tmp_path / "notify"))
        assert manager.recv(2000) == b"STATUS=acme: denied MAINPID=1" + b"x" * (400 - 22)


def test_nothing_waits_without_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "socket")
    report(State.READY, "")


def test_an_absent_manager_is_logged(tmp_path: Path) -> None:
    events: list[tuple[str, object]] = []
    log.send_to(log.Level.ERROR, lambda _level, event, fields: events.append((event, fields["state"])))
    try:
        report(State.STOPPING, str(tmp_path / "none"))
        report("a line", str(tmp_path / "none"))
    finally:
        log.reset()
    assert events == [("the service manager cannot be reached", name) for name in ("STOPPING", "STATUS")]
