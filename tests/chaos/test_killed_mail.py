"""`csr submit --via smtp`, killed at each of its writes and run again: one mail, under one Message-ID."""

from __future__ import annotations

import signal
from itertools import product
from typing import Final

import pytest

from tests.chaos.killing import Killable, Point, Ran, signalled
from tests.support.counts import TALLY
from tests.support.mail_servers import BROKER, DESK, PASSWORD, MailServers
from tests.support.system import System

pytestmark = [pytest.mark.slow, pytest.mark.deep, pytest.mark.peer("dovecot", "postfix"), pytest.mark.rights("chown")]
SUBMIT: Final = ("csr", "submit", "acme", "--via", "smtp")
KILLS: Final = tuple(signalled(signal.SIGKILL, phase) for phase in ("before", "after"))


def prepare(system: System, servers: MailServers) -> Killable:
    system.added()
    system.ok("account", "set", "acme", "--contact", DESK)
    system.ok("mail", "set", "smtp", "--password-file", "-", input=PASSWORD)
    smtp = f'host = "{servers.host}"\nport = "{servers.smtp}"\nuser = "{BROKER}"\nfrom = "{BROKER}"\n'
    with (system.home / "broker.toml").open("a") as file:
        file.write(f'\n[mail.smtp]\n{smtp}ca_file = "{servers.ca_file}"\n')
    return Killable(system.environment)


def test_killed_at_any_write_it_is_one_mail(system: System, mail_servers: MailServers) -> None:
    killable = prepare(system, mail_servers)

    def submitted(at: int = 0, **how: object) -> Ran:
        return killable.run(*SUBMIT, cwd=system.home, at=at, **how)  # type: ignore[arg-type]

    system.ok("csr", "new", "acme")
    points = [point for point in submitted().points if "/data/" in point.what or point.kind != "vault"]
    assert [point for point in points if "rotation/acme" in point.what], points
    for point, kill in product(points, KILLS):
        system.ok("csr", "new", "acme", "--supersede", "--yes")
        mail_servers.empty()
        assert submitted(point.number, fault=kill).code == -signal.SIGKILL
        TALLY["kill points"] += 1
        again = submitted()
        assert again.code == 0, again.ended.err
        assert_one_mail(system, mail_servers, point)


def assert_one_mail(system: System, servers: MailServers, point: Point) -> None:
    with system.broker() as broker:
        request = broker.account("acme").open_request  # type: ignore[arg-type]
    assert request
    (submission,) = request.submissions
    servers.arrived(DESK)
    mails = servers.mails(DESK)
    assert {mail["Message-ID"] for mail in mails} == {submission.message_id}, point
    assert len({(mail["Date"], mail.as_string().partition("From: ")[2]) for mail in mails}) == 1, point
