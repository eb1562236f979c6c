"""Output for programs may hold a stranger's text, and a terminal may show it."""

from __future__ import annotations

import json

import pytest

from broker.cli.output import show_json, show_table


def test_json_is_escaped_for_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"title": "Société \x1b[2J\x9b2J\u202e\u2028\x7f\U000e0041\n\ud800", "\u200bkey": ["\u00a0", "ok"]}
    show_json(value)
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "Société" in out
    assert json.loads(out) == value


def test_a_narrow_terminal_loses_no_column(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns a wide row becomes a block."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    facts = " ".join(f"fact{number}=value" for number in range(20))
    show_table(["at", "chain", "what", "facts"], [("2026-11-26", "accounts/acme", "account-added", facts)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["at", "chain", "what", "facts"]
    assert lines[3].endswith(facts)


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_are_for_terminals(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    no_color: str,
    coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    show_table(["account", "state"], [("acme", "expired")], colours={"expired": "red"})
    out = capsys.readouterr().out
    assert ("\x1b[31mexpired\x1b[0m" in out) is coloured
    assert ("\x1b" in out) is coloured
