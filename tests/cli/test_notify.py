"""Notices through a real Postfix, with the real vault: bounces, two schedulers at a time, a kill after the mail."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import icalendar
import pytest

from tests.support.mail_servers import BROKER, NOBODY, PASSWORD, TEAM, MailServers
from tests.support.system import System

pytestmark = [pytest.mark.peer("dovecot", "postfix"), pytest.mark.rights("chown"), pytest.mark.slow]
# What the scheduler does in a sweep; with "kill", it ends by SIGKILL when the first mail has left
SWEEP: Final = """
import os, signal, sys
from broker.copies import replace
from pathlib import Path
from broker.compose.graph import Broker
from broker.config import resolve
from broker.model.plan import account_plan

def killing(letter):
    deliver(letter)
    os.kill(os.getpid(), signal.SIGKILL)

broker = Broker(resolve(flags={"actor": "ops"}, environment=os.environ, file=None), os.environ)
notices, now = broker.notifying.notices, broker.true_clock()
deliver = notices.deliver
if "kill" in sys.argv:
    notices = replace(notices, deliver=killing)
accounts = list(broker.all_accounts())
plans = [account_plan(a, broker.profile(a.profile, broker.roles.here[0]).renewal, now) for a in accounts]
print("ready", flush=True)
sys.stdin.readline()
notices.notify(plans, lambda: None)
broker.close()
"""


@pytest.fixture
def mailing(system: System, mail_servers: MailServers) -> System:
    """A system whose notices go through Postfix, and an account of `TEAM` whose candidate waits for a person."""
    own = [f'host = "{mail_servers.host}"', f'user = "{BROKER}"', f'ca_file = "{mail_servers.ca_file}"']
    lines = ["", "[mail.smtp]", *own, f'port = "{mail_servers.smtp}"', f'from = "{BROKER}"']
    lines += ["[mail.imap]", *own, f'port = "{mail_servers.imap}"', 'tls = "starttls"', ""]
    with (system.home / "broker.toml").open("a") as file:
        file.write("\n".join(lines))
    for server in ("smtp", "imap"):
        system.ok("mail", "set", server, "--password-file", "-", input=PASSWORD)
    system.candidate()
    system.ok("account", "set", "acme", "--team", TEAM)
    system.here = True
    return system


def started(system: System, *arguments: str) -> subprocess.Popen[str]:
    """Start a sweep that waits for a line before it notifies."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, *arguments],
        cwd=system.home,
        env=system.environment | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def ended(process: subprocess.Popen[str], code: int = 0) -> None:
    _, err = process.communicate("\n", timeout=60)
    assert process.returncode == code, err


def test_two_at_a_time_send_one_mail(mailing: System, mail_servers: MailServers) -> None:
    """By its Message-ID. The mail says what to type, and its calendar entry is one that a program reads."""
    both = [started(mailing), started(mailing)]
    for process in both:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        ended(process)
    mail_servers.arrived(TEAM)
    ended(started(mailing))  # and nothing later
    mailing.ok("notify", "test", TEAM)
    mail_servers.arrived(TEAM, lambda mail: "test" in mail["Subject"])
    alerts = [mail for mail in mail_servers.mails(TEAM) if "test" not in mail["Subject"]]
    assert len({mail["Message-ID"] for mail in alerts}) == 1
    body = alerts[0].get_body(("plain",))
    assert body
    assert "\n  broker rotation promote acme\n" in body.get_content().replace("\r\n", "\n")
    assert alerts[0]["Subject"] == "acme: you must act: generation 1 is ready to be tried"


def test_a_kill_after_the_mail_repeats_it(mailing: System, mail_servers: MailServers) -> None:
    ended(started(mailing, "kill"), -9)
    mail_servers.arrived(TEAM)
    ended(started(mailing))
    mailing.ok("notify", "test", TEAM)
    mail_servers.arrived(TEAM, lambda mail: "test" in mail["Subject"])
    ids = [mail["Message-ID"] for mail in mail_servers.mails(TEAM) if "test" not in mail["Subject"]]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_bounce_is_proof_of_death(mailing: System, mail_servers: MailServers) -> None:
    """Postfix returns the mail to an address that nobody has, and a sweep reads it; a forged report changes nothing."""
    mailing.ok("account", "set", "acme", "--team", NOBODY)
    assert f"{NOBODY}: sent" in mailing.ok("notify", "test", "--all").err
    report = mail_servers.arrived(BROKER).as_bytes()
    mail_servers.empty()
    mail_servers.put(BROKER, report.replace(b"credential-broker.invalid", b"elsewhere.invalid"))
    assert not dead(mailing)
    mail_servers.put(BROKER, report)
    assert dead(mailing)
    assert "bounced with status 5.1.1" in mailing.ok("notify", "list").out
    assert "acme: none of its recipients of notices can be reached" in mailing.ok("status").err
    codes = [finding["code"] for finding in mailing.run("doctor", "-o", "json").json["findings"]]
    assert {"notice.nobody", "notice.dead"} <= set(codes)
    mailing.ok("notify", "test", NOBODY)
    assert "none of its recipients" not in mailing.ok("status").err


def dead(system: System) -> bool:
    """Sweep, and return whether the team's address is dead."""
    system.ok("rotation", "run", "--once")
    [team, _] = system.ok("notify", "list", "-o", "json").json
    assert team["recipient"] == NOBODY
    return bool(team["dead_since"])


def test_a_sweep_runs_hooks_and_tells_people(mailing: System, mail_servers: MailServers) -> None:
    """One promotion by the scheduler: its hook runs once, with what it may know and no token."""
    out = mailing.home / "hooked"
    script = mailing.home / "hook"
    script.write_text(f'#!/bin/sh\nenv >> "{out}"\n')
    script.chmod(0o700)
    with (mailing.home / "broker.toml").open("a") as file:
        file.write(f'[hooks]\non_promoted = ["{script}"]\n')
    mailing.ok("account", "set", "acme", "--promotion", "auto")
    for _ in range(2):
        mailing.ok("rotation", "run", "--once")
    seen = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert out.read_text().count("BROKER_EVENT=") == 1
    assert (seen["BROKER_EVENT"], seen["BROKER_ACCOUNT"], seen["BROKER_GENERATION"]) == ("promoted", "acme", "1")
    assert not [name for name in seen if "TOKEN" in name or name.startswith(("VAULT", "BAO"))]


def test_a_refused_recipient_is_an_error(mailing: System) -> None:
    mailing.ok("account", "set", "acme", "--team", "refused@partner.test", "--team", TEAM)
    ended_ = mailing.run("notify", "test", "--all", "-o", "json")
    assert ended_.code == 6
    assert "refuses the recipient refused@partner.test" in ended_.json["message"]
    assert f"{TEAM}: sent" in ended_.err


def test_an_address_of_nobody_is_refused(mailing: System) -> None:
    ended_ = mailing.run("notify", "test", "team@company.tset")
    assert ended_.code == 2
    assert f"did you mean {TEAM}?" in ended_.err


def test_the_calendar_of_a_notice(mailing: System, mail_servers: MailServers) -> None:
    mailing.ok("rotation", "promote", "acme")
    mailing.ok("account", "set", "acme", "--renewal", "manual")
    mailing.ok("csr", "new", "acme")
    ended(started(mailing))
    mail = mail_servers.arrived(TEAM)
    [entry] = mail.iter_attachments()
    assert entry.get_content_type() == "text/calendar"
    [event] = icalendar.Calendar.from_ical(entry.get_content()).walk("VEVENT")
    assert event["UID"] == "acme.drafted-r2@credential-broker.invalid"
