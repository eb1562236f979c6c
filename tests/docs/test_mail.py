"""docs/mail.md: its commands are typed, with its settings, at a real mail server."""

from __future__ import annotations

import os
import re
import shlex
from email.message import EmailMessage
from pathlib import Path
from typing import Final

import pytest

from tests.support.mail_servers import BROKER, PASSWORD, MailServers
from tests.support.sources import ROOT
from tests.support.system import LOGIN, System

TEXT: Final = (ROOT / "docs" / "mail.md").read_text(encoding="utf-8").partition("## Replies")[2]
COMMANDS: Final = "".join(re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)).splitlines()
SETTINGS: Final = "\n".join(re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
ID: Final = "acme/1f6a90c2b7d3e845"


def a_mail(text: str, reply: Path | None = None) -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "desk@partner.example", "your request"
    message.set_content(text)
    if reply:
        message.add_attachment(reply.read_bytes(), "application", "zip", filename=reply.name)
    return message.as_bytes()


def line(start: str) -> list[str]:
    """Return the words of the command on the page that begins so."""
    (found,) = [text for text in COMMANDS if text.startswith(f"broker {start}")]
    return shlex.split(found.partition(" <")[0])[1:]


@pytest.mark.slow
@pytest.mark.peer("dovecot", "postfix")
@pytest.mark.rights("chown")
def test_commands_about_replies_work(system: System, mail_servers: MailServers, tmp_path: Path) -> None:
    system.promoted()
    system.ok("csr", "new", "acme")
    changed = {
        "/srv/broker/replies": str(tmp_path),
        "imap.acme.example": mail_servers.host,
        "partner-certificates@acme.example": BROKER,
    }
    settings = SETTINGS
    for printed, ours in changed.items():
        assert printed in settings
        settings = settings.replace(printed, ours)
    server = f'port = "{mail_servers.imaps}"\nca_file = "{mail_servers.ca_file}"\n'
    with (system.home / "broker.toml").open("a") as file:
        file.write(f"\n{settings}\n{server}")
    (system.home / "password.txt").write_text(PASSWORD)
    system.ok(*line("mail set imap"))
    assert "logged in" in system.ok(*line("mail test")).err
    mail_servers.put(BROKER, a_mail(f"We have a question about {LOGIN}."))
    mail_servers.put(BROKER, a_mail("your certificate", system.reply()))
    (tmp_path / "stray.txt").write_text("a note")
    os.utime(tmp_path / "stray.txt", (0, 0))
    system.ok("rotation", "run", "--once")
    assert [path.suffix for path in sorted((tmp_path / "refused").iterdir())] == [".txt", ".txt"]
    listed = dict(re.findall(r"^(acme/\w+)\s+(\w+)", system.ok(*line("reply list")).out, re.MULTILINE))
    ids = {kind: id_ for id_, kind in listed.items()}
    assert set(ids) == {"reply", "unreadable"}
    for start, kind in (("reply show", "reply"), ("cert import", "reply"), ("reply dismiss", "unreadable")):
        system.ok(*(word.replace(ID, ids[kind]) for word in line(start)))
    assert "no reply waits" in system.ok("reply", "list").err
