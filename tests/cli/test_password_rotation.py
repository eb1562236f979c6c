"""A password rotation on the command line: people, roles and hosts take turns."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from broker.cli import password
from broker.model.role import Role
from broker.model.secret import Secret
from tests.cli.test_one_role import only
from tests.support.cli_harness import CliHarness
from tests.support.system import LOGIN, PASSWORD
from tests.support.terminal import Terminal

pytestmark = pytest.mark.slow

NEW = "an0ther-password"


def test_people_and_hosts_take_turns(harness: CliHarness) -> None:
    """Each command runs on the host of one role, as another person, and goes on where the last one ended."""
    harness.put("promoted")
    desk = {"BROKER_CONFIG": only(harness, (Role.OPERATOR,))}
    begun = harness.ok("password rotate acme -o json", env=desk | {"BROKER_ACTOR": "ada"}).json
    assert (begun["old"], begun["next"]) == (1, "asked")
    harness.ok("password rotate acme --done asked --note INC-7", env=desk | {"BROKER_ACTOR": "bea"})
    harness.ok("password rotate acme --done set", env=desk | {"BROKER_ACTOR": "cyd"})
    assert "broker password rotate acme" in harness.ok("status acme").out
    try:
        harness.partner.registry.set_password(LOGIN, NEW)
        stored = harness.ok("password rotate acme", env=desk).err
        assert "next: broker password set acme" in stored
        harness.ok("password set acme --password-file -", input=NEW.encode(), env=desk)
        steps = harness.ok("password rotate acme -o json", env=desk).json
        assert steps["hint"] == "broker rotation promote acme --generation 2"
        harness.ok("rotation promote acme --generation 2")
        shown = harness.ok("password rotate acme -o json", env=desk).json
        assert [(s["step"], s["by"], s["note"]) for s in shown["steps"]][:2] == [
            ("asked", "bea", "INC-7"),
            ("set", "cyd", ""),
        ]
        assert [bool(s["at"]) for s in shown["steps"]] == [True] * 5 + [False]
        done = harness.ok("password rotate acme --done dead", env=desk)
        assert "the old one is dead" in done.err
        assert harness.account.password_rotation is None
        harness.ok("evidence verify acme")
    finally:
        harness.partner.registry.set_password(LOGIN, PASSWORD)


def test_a_terminal_asks_for_each_step(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.watched = False
    command = [sys.executable, "-m", "broker", "password", "rotate", "acme"]
    with Terminal(command, harness.home, harness.saved.system.environment) as terminal:
        for question, answer in (
            ("asked: the partner, or its portal, was asked for a new password. Is this done? [y/N]: ", "y"),
            ("set: the new password is set at the partner. Is this done? [y/N]: ", "y"),
            ("Store the new password now? [y/N]: ", "y"),
            ("Password: ", NEW),
            ("Repeat for confirmation: ", NEW),
        ):
            terminal.wait_for(question)
            terminal.type(f"{answer}\n")
        assert terminal.end() == 0, terminal.said
    assert "next: broker rotation promote acme --generation 2" in terminal.said
    assert NEW not in terminal.said
    assert harness.ok("password rotate acme -o json").json["next"] == "tried"


def test_rotation_ended_at_the_prompt(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else ended it while the new password was typed: nothing says that the old one is dead."""

    def typed(_: str) -> Secret[str]:
        harness.ok("password rotate acme --abort --reason 'the desk is away'")
        return Secret(NEW)

    harness.put("changing")
    for step in ("asked", "set"):
        harness.ok(f"password rotate acme --done {step}")
    monkeypatch.setattr(password, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    monkeypatch.setattr(password, "read_password", typed)
    ended = harness.run("password rotate acme")
    assert ended.code == 8, ended.err
    assert "password 2 of acme is stored, but the password rotation was ended meanwhile" in ended.err
    assert "dead" not in ended.err
    assert [c.parts.password for c in harness.account.candidates] == [2]


def test_aborted_rotation_keeps_the_old_password(harness: CliHarness) -> None:
    harness.put("changing")
    harness.ok("password set acme --password-file -", input=NEW.encode())
    harness.ok("password rotate acme --abort --reason 'the desk is away'")
    assert not harness.account.candidates
    assert harness.ok("rotation canary acme -o json").json["generation"] == 1
    assert "the desk is away" in harness.ok("evidence show acme").out
    harness.ok("evidence verify acme")
