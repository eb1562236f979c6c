"""Replies that arrived: shown, imported, dismissed, and read from the folder of this host."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from tests.support.cli_harness import CliHarness
from tests.support.saved_states import REPLY

NAME = f"acme/{REPLY}"
LONG_AGO = (1_700_000_000, 1_700_000_000)


def test_a_reply_is_listed_with_its_next_step(harness: CliHarness) -> None:
    harness.put("arrived")
    (row,) = json.loads(harness.ok("reply list -o json").out)
    assert (row["id"], row["kind"], row["request"], row["account"]) == (NAME, "reply", 1, "acme")
    assert row["hint"] == f"broker cert import acme --reply {NAME}"
    assert "Desk <desk@partner.example>" in harness.ok("reply list acme").out
    harness.put("requested")
    assert "no reply waits" in harness.ok("reply list").err


def test_show_says_what_an_import_would_find(harness: CliHarness) -> None:
    harness.put("arrived")
    ended = harness.ok(f"reply show {NAME}")
    assert "(not verified)" in ended.out
    assert f"broker cert import acme --reply {NAME} --accept-ca" in ended.err
    shown = json.loads(harness.ok(f"reply show {NAME} -o json").out)
    assert "BEGIN CERTIFICATE" in shown["material"]
    assert "PRIVATE" not in shown["material"]


def test_an_imported_reply_is_over(harness: CliHarness) -> None:
    harness.put("arrived")
    harness.ok(f"cert import acme --reply {NAME} {shlex.join(harness.saved.system.accepting())}")
    assert json.loads(harness.ok("reply list -o json").out) == []
    ended = harness.run(f"cert import acme --reply {NAME}")
    assert (ended.code, f"reply {NAME} was imported" in ended.err) == (6, True)


def test_a_dismissed_reply_is_over(harness: CliHarness) -> None:
    harness.put("arrived")
    harness.ok(f"reply dismiss {NAME} --reason forged")
    assert "already" in harness.ok(f"reply dismiss {NAME} --reason forged").err
    assert json.loads(harness.ok("reply list -o json").out) == []
    assert "dismissed forged" in harness.ok(f"reply show {NAME}").out
    assert f"reply {NAME} was dismissed" in harness.run(f"cert import acme --reply {NAME}").err


def test_dropped_reply_is_imported(harness: CliHarness, tmp_path: Path) -> None:
    """The first one asks about its CA; the next one needs no decision."""
    folder = tmp_path / "replies"
    folder.mkdir()
    for state, moves in (("requested", "it needs a decision"), ("again", "imported into acme")):
        reply = harness.saved.reply(state)
        harness.put(state)
        (folder / reply.name).write_bytes(reply.read_bytes())
        os.utime(folder / reply.name, LONG_AGO)
        with harness.saved.system.broker(replies_folder=str(folder)) as broker:
            broker.arriving.poll()
        (reason,) = (folder / "done").glob(f"*-{reply.name}.txt")
        assert moves in reason.read_text()
    assert harness.saved.account().open_request is None  # type: ignore[union-attr]
