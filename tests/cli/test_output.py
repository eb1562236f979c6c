"""Output for programs may hold a stranger's text, and a terminal may show it."""

from __future__ import annotations

import json

import pytest

from broker.cli.output import show_json


def test_json_is_escaped_where_it_would_drive_a_terminal_and_reads_back_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"title": "Société \x1b[2J\x9b2J\u202e\u2028\x7f\U000e0041\n\ud800", "\u200bkey": ["\u00a0", "ok"]}
    show_json(value)
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "Société" in out
    assert json.loads(out) == value
