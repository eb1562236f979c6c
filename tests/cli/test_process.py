"""The command as a process: on a terminal, in a pipe that breaks, with nothing to read, under another locale."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_harness import CliHarness
from tests.support.proxy import Cue, Fault, proxied
from tests.support.system import Ended
from tests.support.terminal import Terminal

pytestmark = pytest.mark.slow
FULL = Path("/dev/full")
TYPED = "typed-unseen"


def run(harness: CliHarness, *words: str | bytes, env: dict[str, str] | None = None, **options: Any) -> Ended:
    harness.watched = False
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True} | options
    environment = {**harness.saved.system.environment, **(env or {})}
    command: Sequence[str | bytes] = [sys.executable, "-m", "broker", *words]
    done = subprocess.run(command, cwd=harness.home, env=environment, timeout=60, check=False, **given)
    coding = (env or {}).get("PYTHONIOENCODING", "utf-8")
    return Ended(done.returncode, (done.stdout or b"").decode(coding), (done.stderr or b"").decode(coding))


def on_terminal(harness: CliHarness, *words: str) -> Terminal:
    harness.watched = False
    return Terminal([sys.executable, "-m", "broker", *words], harness.home, harness.saved.system.environment)


def test_password_is_typed_twice_unseen(harness: CliHarness) -> None:
    harness.put("added")
    with on_terminal(harness, "password", "set", "acme") as terminal:
        terminal.wait_for("Password: ")
        terminal.type(f"{TYPED}\n")
        terminal.wait_for("Repeat for confirmation: ")
        terminal.type(f"{TYPED}\n")
        assert terminal.end() == 0
    assert TYPED not in terminal.said
    assert "password 2 of acme is stored" in terminal.said
    assert harness.saved.system.vault.admin.read("passwords/acme/2").data["value"]["password"] == TYPED


def test_ctrl_c_at_a_prompt_stores_nothing(harness: CliHarness) -> None:
    harness.put("added")
    before = harness.look()
    with on_terminal(harness, "password", "set", "acme") as terminal:
        terminal.wait_for("Password: ")
        terminal.type(f"{TYPED}\n")
        terminal.wait_for("Repeat for confirmation: ")
        terminal.type("something-else\n")
        terminal.wait_for("do not match")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "interrupted" in terminal.said
    assert TYPED not in terminal.said
    assert harness.look() == before


@pytest.mark.parametrize("words", [("csr", "cancel", "acme"), ("csr", "new", "acme", "--supersede")])
@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("", 2), ("y", 0)])
def test_what_is_lost_is_asked_about(harness: CliHarness, words: Sequence[str], answer: str, code: int) -> None:
    harness.put("requested")
    before = harness.look()
    with on_terminal(harness, *words) as terminal:
        terminal.wait_for("Continue?")
        terminal.type(f"{answer}\n")
        assert terminal.end() == code
    open_still = harness.account.requests[0].closed is None
    assert open_still is (code != 0)
    assert (harness.look() == before) is open_still


def test_init_asks_a_few_questions(harness: CliHarness) -> None:
    harness.put("empty")
    with on_terminal(harness, "init", "--out", "asked.toml") as terminal:
        terminal.wait_for("Where is Vault?")
        terminal.type("vault.example\n")
        terminal.wait_for("not an address of Vault")
        terminal.type("https://vault.example:8200\n")
        terminal.wait_for("Mount")
        terminal.type("\n")
        terminal.wait_for("CA certificates")
        terminal.type("nowhere.pem\n")
        terminal.wait_for("nowhere.pem is not a file")
        terminal.type("\n")
        terminal.wait_for("Directory")
        terminal.type("\n")
        assert terminal.end() == 0
    assert 'address = "https://vault.example:8200"' in (harness.home / "asked.toml").read_text()


def test_tables_on_a_terminal_fit(harness: CliHarness) -> None:
    harness.put("rotated")
    with on_terminal(harness, "account", "list") as terminal:
        assert terminal.end() == 0
    assert "\x1b[1mACCOUNT" in terminal.said
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m|\r", "", terminal.said).splitlines())) <= 100
    assert "\x1b" not in run(harness, "account", "list").out


def test_wait_for_vault_is_noted_for_people(harness: CliHarness) -> None:
    words = ["--timeout", "4s", "account", "list"]
    away = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "unused"}
    environment = {**harness.saved.system.environment, **away}
    with Terminal([sys.executable, "-m", "broker", *words], harness.home, environment) as terminal:
        assert terminal.end() == 3
    assert terminal.said.count("is away: waiting up to 4s for it") == 1
    assert "is away" not in run(harness, *words, env=away).err


@pytest.mark.parametrize(
    "words", [["account", "list"], ["evidence", "show", "--all"], ["csr", "new", "acme"], ["--help"]]
)
def test_whoever_stops_reading_is_no_fault(harness: CliHarness, words: list[str]) -> None:
    harness.put("requested")
    read, write = os.pipe()
    os.close(read)
    try:
        ended = run(harness, *words, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert ended.code == 141
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err
    assert "error" not in ended.err


def test_a_full_disk_is_told(harness: CliHarness) -> None:
    harness.put("requested")
    with FULL.open("wb") as full:
        ended = run(harness, "csr", "new", "acme", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        shown = run(harness, "account", "show", "acme", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        short = run(harness, "csr", "--help", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    for each in (ended, shown, short, run(harness, "csr", "new", "acme", "--out", "/dev/full")):
        assert each.code == 9
        assert "No space left" in each.err
        assert "Exception ignored" not in each.err


def test_nothing_to_read_from_is_told(harness: CliHarness) -> None:
    harness.put("added")
    before = harness.look()
    for words in (
        ["password", "set", "acme", "--password-file", "-"],
        ["password", "set", "acme"],
        ["csr", "lint", "-"],
    ):
        ended = run(harness, *words, stdin=None, preexec_fn=lambda: os.close(0))
        assert ended.code == 2, ended
        assert "Traceback" not in ended.err
    assert harness.look() == before


def test_nowhere_to_write_to_is_no_fault(harness: CliHarness) -> None:
    harness.put("added")
    ended = run(
        harness, "account", "list", capture_output=False, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1)
    )
    assert (ended.code, ended.err) == (0, "")
    ended = run(harness, "account", "show", "nobody", capture_output=False, preexec_fn=lambda: os.closerange(0, 3))
    assert ended.code == 2


def test_words_that_are_no_text_are_refused(harness: CliHarness) -> None:
    harness.put("added")
    for words in ([b"account", b"show", b"\xff"], [b"app", b"add", b"acme/\xff"], [b"csr", b"lint", b"no-\xff-file"]):
        ended = run(harness, *words)
        assert ended.code == 2
        assert "Traceback" not in ended.err
    ended = run(harness, b"account", b"show", b"\xff", b"-o", b"json")
    assert ended.json["success"] is False


def test_terminal_without_a_letter_is_fine(harness: CliHarness) -> None:
    harness.put("added")
    done = run(harness, "account", "add", "--help", env={"PYTHONIOENCODING": "latin-1"})
    assert done.code == 0, done
    assert "such as MZP\\u2026" in done.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_a_wait_for_vault(harness: CliHarness, number: signal.Signals, code: int) -> None:
    harness.put("added")
    before = harness.look()
    harness.watched = False
    place = harness.home / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(place))
        silent.listen()
        environment = {**harness.saved.system.environment, "VAULT_ADDR": f"unix://{place}"}
        command = [sys.executable, "-m", "broker", "account", "list"]
        with subprocess.Popen(command, cwd=harness.home, env=environment, stderr=subprocess.PIPE) as process:
            asking, _ = silent.accept()
            with asking:
                process.send_signal(number)
                _, err = process.communicate(timeout=60)
    place.unlink()
    assert process.returncode == code
    assert b"interrupted" in err
    assert harness.look() == before


def test_second_signal_ends_a_waiting_holder(harness: CliHarness) -> None:
    """The first has it give back what it may have been given, which waits for the same Vault."""
    harness.put("promoted")
    harness.watched = False
    words = ["bundle", "get", "acme/reporting", "--consumer-token-file", "reader.token", "--to", "bundle", "--hold"]
    with proxied(harness.saved.system.vault.settings.address, lambda _: None) as proxy:
        proxy.plan(Cue(Fault.HANGS_BEFORE, path=".*/data/consumers/.*", lasting=True))
        environment = {**harness.saved.system.environment, "VAULT_ADDR": proxy.address, "BROKER_TIMEOUT": "10m"}
        command = [sys.executable, "-m", "broker", *words]
        with subprocess.Popen(command, cwd=harness.home, env=environment, stderr=subprocess.PIPE) as process:
            try:
                for asked in (1, 2):
                    until = time.monotonic() + 60
                    while sum(p.fault is not None for p in proxy.passed) < asked and time.monotonic() < until:
                        time.sleep(0.02)
                    process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == 130
    assert b"interrupted" in err
    assert not (harness.home / "bundle" / "current").exists()
