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

from tests.support.proxy import Cue, Fault, proxied
from tests.support.shop import Shop
from tests.support.terminal import Terminal
from tests.support.world import Ended

pytestmark = pytest.mark.slow
FULL = Path("/dev/full")
TYPED = "typed-unseen"


def run(shop: Shop, *words: str | bytes, env: dict[str, str] | None = None, **options: Any) -> Ended:
    shop.watched = False
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True} | options
    environment = {**shop.lab.world.environment, **(env or {})}
    command: Sequence[str | bytes] = [sys.executable, "-m", "broker", *words]
    done = subprocess.run(command, cwd=shop.home, env=environment, timeout=60, check=False, **given)
    coding = (env or {}).get("PYTHONIOENCODING", "utf-8")
    return Ended(done.returncode, (done.stdout or b"").decode(coding), (done.stderr or b"").decode(coding))


def on_terminal(shop: Shop, *words: str) -> Terminal:
    shop.watched = False
    return Terminal([sys.executable, "-m", "broker", *words], shop.home, shop.lab.world.environment)


def test_a_password_is_typed_twice_and_never_seen(shop: Shop) -> None:
    shop.put("added")
    with on_terminal(shop, "password", "set", "acme") as terminal:
        terminal.wait_for("Password: ")
        terminal.type(f"{TYPED}\n")
        terminal.wait_for("Repeat for confirmation: ")
        terminal.type(f"{TYPED}\n")
        assert terminal.end() == 0
    assert TYPED not in terminal.said
    assert "password 2 of acme is stored" in terminal.said
    assert shop.lab.world.vault.admin.read("passwords/acme/2").data["value"]["password"] == TYPED


def test_two_that_differ_are_asked_again_and_ctrl_c_stores_nothing(shop: Shop) -> None:
    shop.put("added")
    with on_terminal(shop, "password", "set", "acme") as terminal:
        terminal.wait_for("Password: ")
        terminal.type(f"{TYPED}\n")
        terminal.wait_for("Repeat for confirmation: ")
        terminal.type("something-else\n")
        terminal.wait_for("do not match")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "interrupted" in terminal.said
    assert TYPED not in terminal.said
    assert shop.look() == shop.before


@pytest.mark.parametrize("words", [("csr", "cancel", "acme"), ("csr", "new", "acme", "--supersede")])
@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("", 2), ("y", 0)])
def test_what_is_lost_is_asked_about(shop: Shop, words: Sequence[str], answer: str, code: int) -> None:
    shop.put("requested")
    with on_terminal(shop, *words) as terminal:
        terminal.wait_for("Go on?")
        terminal.type(f"{answer}\n")
        assert terminal.end() == code
    open_still = shop.account.requests[0].closed is None
    assert open_still is (code != 0)
    assert (shop.look() == shop.before) is open_still


def test_init_asks_a_few_questions(shop: Shop) -> None:
    shop.put("empty")
    with on_terminal(shop, "init", "--out", "asked.toml") as terminal:
        terminal.wait_for("Where is Vault?")
        terminal.type("vault.example\n")
        terminal.wait_for("not an address of Vault")
        terminal.type("https://vault.example:8200\n")
        terminal.wait_for("Mount")
        terminal.type("\n")
        terminal.wait_for("CA certificates")
        terminal.type("nowhere.pem\n")
        terminal.wait_for("nowhere.pem is no file")
        terminal.type("\n")
        terminal.wait_for("Directory")
        terminal.type("\n")
        assert terminal.end() == 0
    assert 'address = "https://vault.example:8200"' in (shop.home / "asked.toml").read_text()


def test_on_a_terminal_tables_are_framed_and_fit(shop: Shop) -> None:
    shop.put("rotated")
    with on_terminal(shop, "account", "list") as terminal:
        assert terminal.end() == 0
    assert "│ acme" in terminal.said
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m|\r", "", terminal.said).splitlines())) <= 100
    assert "│" not in run(shop, "account", "list").out


def test_who_waits_for_a_vault_that_is_away_is_told_so_and_a_program_is_not(shop: Shop) -> None:
    words = ["--timeout", "4s", "account", "list"]
    away = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "unused"}
    environment = {**shop.lab.world.environment, **away}
    with Terminal([sys.executable, "-m", "broker", *words], shop.home, environment) as terminal:
        assert terminal.end() == 3
    assert terminal.said.count("is away: waiting up to 4s for it") == 1
    assert "is away" not in run(shop, *words, env=away).err


@pytest.mark.parametrize(
    "words", [["account", "list"], ["evidence", "show", "--all"], ["csr", "new", "acme"], ["--help"]]
)
def test_whoever_stops_reading_is_no_fault(shop: Shop, words: list[str]) -> None:
    shop.put("requested")
    read, write = os.pipe()
    os.close(read)
    try:
        ended = run(shop, *words, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert ended.code == 141
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err
    assert "error" not in ended.err


def test_a_full_disk_is_told(shop: Shop) -> None:
    shop.put("requested")
    with FULL.open("wb") as full:
        ended = run(shop, "csr", "new", "acme", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        shown = run(shop, "account", "show", "acme", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        short = run(shop, "csr", "--help", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    for each in (ended, shown, short, run(shop, "csr", "new", "acme", "--out", "/dev/full")):
        assert each.code == 2
        assert "No space left" in each.err
        assert "Exception ignored" not in each.err


def test_nothing_to_read_from_is_told(shop: Shop) -> None:
    shop.put("added")
    for words in (
        ["password", "set", "acme", "--password-file", "-"],
        ["password", "set", "acme"],
        ["csr", "lint", "-"],
    ):
        ended = run(shop, *words, stdin=None, preexec_fn=lambda: os.close(0))
        assert ended.code == 2, ended
        assert "Traceback" not in ended.err
    assert shop.look() == shop.before


def test_nowhere_to_write_to_is_no_fault(shop: Shop) -> None:
    shop.put("added")
    ended = run(shop, "account", "list", capture_output=False, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert (ended.code, ended.err) == (0, "")
    ended = run(shop, "account", "show", "nobody", capture_output=False, preexec_fn=lambda: os.closerange(0, 3))
    assert ended.code == 2


def test_words_that_are_no_text_are_refused(shop: Shop) -> None:
    shop.put("added")
    for words in ([b"account", b"show", b"\xff"], [b"app", b"add", b"acme/\xff"], [b"csr", b"lint", b"no-\xff-file"]):
        ended = run(shop, *words)
        assert ended.code == 2
        assert "Traceback" not in ended.err
    ended = run(shop, b"account", b"show", b"\xff", b"-o", b"json")
    assert ended.json["success"] is False


def test_a_terminal_that_lacks_a_letter_is_no_reason_to_fail(shop: Shop) -> None:
    shop.put("added")
    done = run(shop, "account", "add", "--help", env={"PYTHONIOENCODING": "latin-1"})
    assert done.code == 0, done
    assert "such as MZP\\u2026" in done.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_end_while_vault_is_silent_it_ends(shop: Shop, number: signal.Signals, code: int) -> None:
    shop.put("added")
    shop.watched = False
    place = shop.home / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(place))
        silent.listen()
        environment = {**shop.lab.world.environment, "VAULT_ADDR": f"unix://{place}"}
        command = [sys.executable, "-m", "broker", "account", "list"]
        with subprocess.Popen(command, cwd=shop.home, env=environment, stderr=subprocess.PIPE) as process:
            asking, _ = silent.accept()
            with asking:
                process.send_signal(number)
                _, err = process.communicate(timeout=60)
    place.unlink()
    assert process.returncode == code
    assert b"interrupted" in err
    assert shop.look() == shop.before


def test_a_holder_that_waits_for_a_silent_vault_is_ended_by_a_second_signal(shop: Shop) -> None:
    """The first has it give back what it may have been given, which waits for the same Vault."""
    shop.put("promoted")
    shop.watched = False
    words = ["bundle", "get", "acme/reporting", "--consumer-token-file", "reader.token", "--to", "bundle", "--hold"]
    with proxied(shop.lab.world.vault.settings.address, lambda _: None) as proxy:
        proxy.plan(Cue(Fault.HANGS_BEFORE, path=".*/data/consumers/.*", lasting=True))
        environment = {**shop.lab.world.environment, "VAULT_ADDR": proxy.address, "BROKER_TIMEOUT": "10m"}
        command = [sys.executable, "-m", "broker", *words]
        with subprocess.Popen(command, cwd=shop.home, env=environment, stderr=subprocess.PIPE) as process:
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
    assert not (shop.home / "bundle" / "current").exists()
