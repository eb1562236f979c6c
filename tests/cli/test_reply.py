"""Replies that arrived: shown, imported, dismissed, and read from the folder of this host."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path

import pytest

from broker.model.role import Role
from broker.model.secret import Secret
from broker.model.subject import Subject
from tests.support.cli_harness import CliHarness
from tests.support.mail_servers import BROKER, PASSWORD, MailServers
from tests.support.saved_states import REPLY

pytestmark = pytest.mark.slow

NAME = f"acme/{REPLY}"
LONG_AGO = (1_700_000_000, 1_700_000_000)


def test_a_reply_is_listed_with_its_next_step(harness: CliHarness) -> None:
    harness.put("arrived")
    (row,) = json.loads(harness.ok("reply list -o json").out)
    assert (row["id"], row["kind"], row["request"], row["account"]) == (NAME, "reply", 1, "acme")
    assert row["hint"] == f"broker reply show {NAME}"
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


def swept(harness: CliHarness, settings: Mapping[str, str]) -> None:
    """Sweep once, as `broker rotation run --once` does."""
    with harness.saved.system.broker(settings=settings) as broker:
        report = broker.scheduling.sweeps.sweep()
    assert not report.failures, report


def test_dropped_reply_is_imported(harness: CliHarness, tmp_path: Path) -> None:
    """The first one asks about its CA; the next one needs no decision."""
    folder = tmp_path / "replies"
    folder.mkdir()
    for state, moves in (("requested", "it needs a decision"), ("again", "imported into acme")):
        reply = harness.saved.reply(state)
        harness.put(state)
        (folder / reply.name).write_bytes(reply.read_bytes())
        os.utime(folder / reply.name, LONG_AGO)
        swept(harness, {"replies.folder": str(folder)})
        (reason,) = (folder / "done").glob(f"*-{reply.name}.txt")
        assert moves in reason.read_text()
    account = harness.saved.account()
    assert account
    assert account.open_request is None


@pytest.mark.peer("dovecot", "postfix")
@pytest.mark.rights("chown")
@pytest.mark.parametrize("auth", ["password", "xoauth2"])
def test_mailed_reply_is_proposed_once(
    harness: CliHarness, mail_servers: MailServers, auth: str, tmp_path: Path
) -> None:
    """Two sweeps and a restart make one proposal; the request stays open until a person imports it."""
    reply = harness.saved.reply("requested").read_bytes()
    harness.put("requested")
    with harness.saved.system.broker() as broker:
        broker.mail_secrets(Role.OPERATOR).store("imap", Secret(PASSWORD))
    program = tmp_path / "token"
    program.write_text(f"#!/bin/sh\necho {mail_servers.token()}\n")
    program.chmod(0o700)
    settings = {
        "mail.imap.host": mail_servers.host,
        "mail.imap.port": str(mail_servers.imap),
        "mail.imap.tls": "starttls",
        "mail.imap.ca_file": str(mail_servers.ca_file),
        "mail.imap.user": BROKER,
        "mail.imap.auth": auth,
        "mail.oauth.token_command": str(program),
    }
    message = EmailMessage()
    message["From"], message["Subject"] = "Desk \x1b[31m <desk@partner.example>", "your certificate"
    message.set_content("Hello")
    message.add_attachment(reply, "application", "zip", filename="reply.zip")
    mail_servers.put(BROKER, message.as_bytes())
    before = harness.account.open_request
    for _ in range(2):
        swept(harness, settings)
    assert harness.account.open_request == before
    (row,) = json.loads(harness.ok("reply list -o json").out)
    assert "\x1b" not in harness.ok("reply list").out + harness.ok("status").out
    assert f"broker reply show {row['id']}" in harness.ok("status").out
    (plan,) = json.loads(harness.ok("rotation plan acme -o json").out)
    assert (plan["who"], plan["hint"]) == ("us", row["hint"])
    harness.ok(f"cert import acme --reply {row['id']} {shlex.join(harness.saved.system.accepting())}")
    assert harness.account.open_request is None


def test_an_address_not_watched_is_noted(harness: CliHarness) -> None:
    harness.put("requested")
    with harness.saved.system.broker(settings={"mail.imap.host": "mail.example", "mail.imap.user": BROKER}) as broker:
        (finding,) = broker.arriving.unwatched(harness.account.subject)
        assert BROKER in finding.hint
        assert not broker.arriving.unwatched(Subject((("emailAddress", BROKER.upper()),)))
    with harness.saved.system.broker() as broker:
        assert not broker.arriving.unwatched(harness.account.subject)
