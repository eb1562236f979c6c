"""Hooks of the agent: signals, programs, systemd; what they are told, and that each runs once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.agent import hooks
from broker.agent.hooks import Hooks
from broker.agent.store import Store
from broker.agent.tables import BundleTable, Hook
from broker.errors import BrokerError, InputError, RefusedError
from broker.model.clock import system_clock
from tests.agent.test_holding import WANTED, until


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Hooks]:
    """Return a function that makes the hooks of a bundle; their state is in `tmp_path`."""

    def make(**given: Any) -> Hooks:
        store = Store(tmp_path / "bundle")
        store.open()
        return Hooks(BundleTable(WANTED, tmp_path / "bundle", hook=Hook(**given)), store, system_clock)

    return make


def test_a_program_is_told_what_happened(made: Callable[..., Hooks], tmp_path: Path) -> None:
    """And it starts with no signal blocked, though the threads of the agent block them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    script = f"env > {tmp_path}/env; grep SigBlk /proc/self/status > {tmp_path}/mask"
    try:
        one = made(command=("sh", "-c", script))
        one.published("gen-000007", 7)
        assert not one.settled
        one.once()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    told = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert told.pop("BROKER_AT")
    assert {name: text for name, text in told.items() if name.startswith("BROKER_")} == {
        "BROKER_EVENT": "published",
        "BROKER_ACCOUNT": "mzp-1",
        "BROKER_APPLICATION": "reporting",
        "BROKER_GENERATION": "7",
        "BROKER_DIRECTORY": f"{tmp_path}/bundle/current",
        "BROKER_REASON": "",
    }
    assert set(told) - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", *(n for n in told if n.startswith("BROKER_"))}
    assert (tmp_path / "mask").read_text().split()[1].strip("0") == ""
    assert one.settled


def test_files_that_go_meanwhile_are_heard_of(made: Callable[..., Hooks], monkeypatch: pytest.MonkeyPatch) -> None:
    """They come back in a directory of the same name, after a hook that began before they went."""
    one = made()
    monkeypatch.setattr(one, "_published", one.removed)
    one.published("gen-000007", 7)
    one.once()
    one.published("gen-000007", 7)
    assert not one.settled


def test_each_generation_and_failure_once(made: Callable[..., Hooks], tmp_path: Path) -> None:
    log = tmp_path / "log"
    say = ("sh", "-c", f"echo $BROKER_EVENT $BROKER_REASON >> {log}")
    one = made(command=say, on_failure=say)
    one.published("gen-000001", 1)
    one.once()
    one.once()
    one.failed("denied")
    one.once()
    one.once()
    assert log.read_text().splitlines() == ["published", "failure denied"]
    one._store.close()
    one = made(command=say, on_failure=say)
    one.failed("denied")
    one.once()
    assert log.read_text().splitlines() == ["published", "failure denied"], "remembered over restarts"
    one.removed()
    one.published("gen-000001", 1)
    one.once()
    assert log.read_text().splitlines()[-1] == "published", "the files were gone in between"


def test_a_process_gets_its_signal(made: Callable[..., Hooks], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 7' HUP; : > {ready}; while :; do sleep 0.01; done"
    with subprocess.Popen(["sh", "-c", script]) as process:
        until(ready.exists)
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        one = made(signal=signal.SIGHUP, pid_file=tmp_path / "pid", process="nginx")
        one.published("gen-000001", 1)
        with pytest.raises(RefusedError, match="which is 'sh'"):
            one.once()
        one._store.close()
        one = made(signal=signal.SIGHUP, pid_file=tmp_path / "pid", process="sh")
        one.published("gen-000001", 1)
        one.once()
    assert process.returncode == 7


@pytest.mark.parametrize(
    ("text", "error"), [("x", InputError), ("-1", InputError), ("1", InputError), ("99999999", RefusedError)]
)
def test_a_number_that_is_no_process(made: Callable[..., Hooks], tmp_path: Path, text: str, error: type) -> None:
    (tmp_path / "pid").write_text(text)
    one = made(signal=signal.SIGHUP, pid_file=tmp_path / "pid")
    one.published("gen-000001", 1)
    with pytest.raises(error):
        one.once()
    assert not one.settled


def test_a_unit_is_reloaded(made: Callable[..., Hooks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    one = made(systemd_reload="nginx.service")
    one.published("gen-000001", 1)
    one.once()
    assert (tmp_path / "asked").read_text() == "reload nginx.service\n"


def test_a_failing_hook_is_tried_again(
    made: Callable[..., Hooks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a failure is given up after five tries."""
    monkeypatch.setattr(hooks, "_AGAIN", (0.0, 0.001))
    runs = tmp_path / "runs"
    one = made(command=("test", "-e", str(tmp_path / "go")), on_failure=("sh", "-c", f"echo run >> {runs}; false"))
    one.start()
    one.failed("denied")
    until(lambda: one._store.state.failed == "denied")
    assert len(runs.read_text().splitlines()) == 5
    one.published("gen-000001", 1)
    until(lambda: one.failures > 6)
    assert not one.settled
    (tmp_path / "go").touch()
    until(lambda: one.settled and not one.failures)
    one.stop()


def test_a_failure_is_heard_beside_a_failing_hook(made: Callable[..., Hooks], tmp_path: Path) -> None:
    one = made(command=("false",), on_failure=("touch", str(tmp_path / "heard")))
    one.published("gen-000001", 1)
    one.failed("stale")
    with pytest.raises(RefusedError):
        one.once()
    assert (tmp_path / "heard").exists()
    assert one._store.state.failed == "stale"
    assert not one.settled


def test_no_hook_settles_by_itself(made: Callable[..., Hooks]) -> None:
    one = made()
    one.published("gen-000001", 1)
    one.once()
    assert one.settled


def test_a_program_that_is_not_there(made: Callable[..., Hooks]) -> None:
    one = made(command=("/no/such/program",))
    one.published("gen-000001", 1)
    with pytest.raises(BrokerError) as raised:
        one.once()
    assert raised.value.hint == "check [bundles.hooks] in broker.toml"
