"""Schedulers as processes: a daemon, two at once with a person, and a leader that is stopped beyond its lock."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from broker.compose.graph import Wiring
from tests.support.system import System

pytestmark = pytest.mark.slow
LISTENING: Final = re.compile(r"listening on (http://\S+) for")
SHORT: Final = """
from datetime import timedelta
from broker.vault import locks
locks.VaultLock.__init__.__defaults__ = (timedelta(seconds=1),)  # the term of the lock
"""
STOPS: Final = """
import os, signal
from broker.vault.connection import Connection
write = Connection.write
def stopping(self, path, data, *, replacing):
    write(self, path, data, replacing=replacing)
    tries = data["value"].get("tries") if path == "accounts/acme" else None
    if tries and not tries[-1]["verdict"]:
        os.kill(os.getpid(), signal.SIGSTOP)  # the canary is reserved, and not yet sent
Connection.write = stopping
"""
RUN: Final = "\nimport sys\nfrom broker.__main__ import main\nsys.exit(main())"


def start(system: System, program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `broker ARGUMENTS` after a program that changes it."""
    command = [sys.executable, "-c", program + RUN, *arguments]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=system.home, env=system.environment, text=True, **pipes)


@pytest.fixture
def candidate(system: System) -> System:
    """A system with a candidate that a machine may promote."""
    system.renewed()
    system.ok("account", "set", "acme", "--promotion", "auto")
    system.partner.log.clear()
    return system


def asked(system: System) -> int:
    """Return how many canaries reached the partner."""
    return len(list(system.partner.log.entries()))


def test_a_stopped_leader_sends_nothing(candidate: System) -> None:
    """SIGSTOP between the reservation of a canary and its sending, for longer than the lock's term."""
    system = candidate
    with start(system, SHORT + STOPS, "rotation", "run", "--once") as old:
        try:
            overtake(system, old)
        finally:
            old.kill()
    assert asked(system) == 0
    with system.broker(Wiring(lambda: datetime.now(UTC) + timedelta(minutes=3))) as broker:
        assert not broker.scheduling.sweeps.sweep().failures
    tries = system.account("acme").tries
    assert asked(system) == sum(bool(one.verdict) for one in tries if one.number > 1)
    assert system.account("acme").generation(2).stage.value == "current"


def overtake(system: System, old: subprocess.Popen[str]) -> None:
    """Wait until `old` is stopped, let others sweep once its term is over, and let it go on."""
    os.waitpid(old.pid, os.WUNTRACED)
    first = start(system, "", "rotation", "run", "--once")  # by the usual term, which is not over
    _, said = first.communicate()
    assert (first.returncode, f"process {old.pid}" in said) == (7, True), said  # the loser says who won
    while True:
        new = start(system, SHORT, "rotation", "run", "--once", "-o", "json")
        out, _ = new.communicate()
        if new.returncode != 7:
            break
    assert (new.returncode, asked(system)) == (0, 0)  # a canary may be on its way
    assert "promote" not in {deed["do"] for deed in json.loads(out)["deeds"]}
    old.send_signal(signal.SIGCONT)
    _, said = old.communicate()
    assert (old.returncode, f"process {new.pid}" in said) == (8, True), said


def test_two_schedulers_and_a_person(candidate: System) -> None:
    """No canary is sent twice, and nothing is promoted twice."""
    system = candidate
    lines = [("rotation", "run", "--once"), ("rotation", "run", "--once"), ("rotation", "promote", "acme")]
    started = [start(system, "", *line) for line in lines]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    for said, code in ended[:2]:
        assert code in (0, 7), said
        assert code == 0 or "the lock is held by" in said or "has it since" in said
    assert ended[2][1] in (0, 6, 8), ended[2][0]
    account = system.account("acme")
    assert account.generation(2).stage.value == "current"
    assert asked(system) == sum(bool(one.verdict) for one in account.tries if one.number > 1)


@contextmanager
def daemon(system: System) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield a running `rotation run`, and the address of its health."""
    with system.start("rotation", "run", "--health", "127.0.0.1:0", stdout=subprocess.DEVNULL) as process:
        try:
            assert process.stderr
            while not (found := LISTENING.search(line := process.stderr.readline().decode())):
                assert line
            yield process, found[1]
        finally:
            process.kill()


def test_a_daemon_sweeps_and_ends_in_order(system: System) -> None:
    system.promoted()
    system.ok("csr", "new", "acme")
    manager = system.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(manager))
        system.changes = {"NOTIFY_SOCKET": str(manager)}
        with daemon(system) as (process, address):
            assert told.recv(100) == b"READY=1"
            found: dict[str, dict[tuple[str, ...], float]] = {}
            while "credential_broker_rotation_last_sweep_timestamp_seconds" not in found:
                text = httpx.get(f"{address}/metrics", trust_env=False, timeout=30).text
                found = {
                    family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
                    for family in parsed(text)
                }
            assert found["credential_broker_rotation_leader"][()] == 1
            assert found["credential_broker_rotation_missed_sweeps"][()] == 0
            assert found["credential_broker_rotation_phase"] == {("acme", "drafted"): 1}
            assert ("acme",) in found["credential_broker_rotation_proven_timestamp_seconds"]
            assert found["credential_broker_notify_recipients_dead"][()] == 0
            assert ("acme", "1", "current") in found["x509_cert_not_after"]
            assert httpx.get(f"{address}/readyz", trust_env=False, timeout=30).status_code == 200
            assert httpx.get(f"{address}/readyz/acme", trust_env=False, timeout=30).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert told.recv(100) == b"STOPPING=1"
            assert process.wait(30) == 0
