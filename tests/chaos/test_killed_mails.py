"""Killed at every write and every mail: run again, the end is the same, and each mail has one Message-ID.

A mail may arrive twice, since nobody can know whether a killed process had sent it. Then both have the same Message-ID.
So have the runs of a hook their event's id, and none is lost.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from broker.copies import replace
from broker.model.names import AccountName
from broker.vault import layout
from broker.vault.scheduler_state import VaultRotationRecords
from tests.chaos.kill_harness import Ground
from tests.chaos.killing import Fault, Killable, Point, Ran, signalled
from tests.chaos.mount_snapshot import fresh
from tests.support.counts import TALLY
from tests.support.saved_states import ACCOUNT, account_faults
from tests.support.smtp_peer import SmtpPeer, smtp_peer
from tests.support.system import System

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)
KILLS: Final = tuple(signalled(signal.SIGKILL, phase) for phase in ("before", "after"))
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {  # the state that each starts from
    "csr submit --via smtp": ("requested", f"csr submit {ACCOUNT} --via smtp"),
    "rotation run --once": ("requested", "rotation run --once"),
    "rotation run --once (renewal)": ("promoted", "rotation run --once"),
}
LATER: Final = 400 * 24 * 3600.0  # seconds: then the certificate of "promoted" is over


@dataclass
class Post:
    """A system whose mails go to `peer`, and its commands."""

    ground: Ground
    peer: SmtpPeer
    _begun: dict[str, Any] = field(default_factory=dict)

    @property
    def system(self) -> System:
        """The system."""
        return self.ground.system

    def begin(self, name: str) -> None:
        """Make everything as the command finds it: the account sends by SMTP, and has a team."""
        fresh(self.ground.here)
        self.ground.saved.put(COMMANDS[name][0])
        vault = self.system.vault.admin
        for path in (layout.LOCK, layout.IDLE, layout.RECIPIENTS):
            vault.call("DELETE", f"{vault.settings.mount}/metadata/{path}")
        self.system.ok("account", "set", ACCOUNT, "--submit-via", "smtp", "--team", "team@acme.example")
        swept = {"submitted": 0}  # the first look takes note of what happened before there was a hook
        VaultRotationRecords(vault).change(AccountName(ACCOUNT), lambda record: replace(record, hooked=swept))
        self.hooked.write_text("")
        self.peer.mails.clear()

    @property
    def hooked(self) -> Path:
        """The file in which a hook writes the id of its event."""
        return self.system.home / "hooked"

    def run(self, name: str, *, at: int = 0, fault: Fault | None = None) -> Ran:
        """Run the command."""
        environment = {**self.system.environment, "BROKER_CONFIG": str(self.system.home / "mailing.toml")}
        later = LATER if "renewal" in name else 0.0
        words = COMMANDS[name][1].split()
        return Killable(environment).run(*words, cwd=self.ground.here, at=at, fault=fault, later=later)

    def free_the_lock(self) -> None:
        """Let the term of a killed scheduler pass."""
        vault = self.system.vault.admin
        stored = vault.read_or_none(layout.LOCK)
        if stored:
            ended = {**stored.data, "value": {**stored.data["value"], "ended": True}}
            vault.write(layout.LOCK, ended, replacing=stored.version)

    def end(self) -> Mapping[str, Any]:
        """Return what must be the same after any kill."""
        assert not list(account_faults(self.system.vault.admin, AccountName(ACCOUNT)))
        account = self.ground.saved.account()
        assert account
        requests = [(r.number, r.closed, [(s.via, s.to) for s in r.submissions]) for r in account.requests]
        by_recipient = sorted(to for _, to in dict(self.peer.mails).items())
        hooks = set(self.hooked.read_text().split())
        return {"requests": requests, "mails": by_recipient, "one id": len(self.peer.ids), "hooks": hooks}


@pytest.fixture(scope="module")
def post(field: Ground) -> Iterator[Post]:
    """The ground of kills, with a mail server."""
    with smtp_peer() as peer:
        own = field.system.home / "mailing.toml"
        post = Post(field, peer)
        hook = f"""[hooks]\non_submitted = ["sh", "-c", "echo $BROKER_EVENT_ID >> '{post.hooked}'"]\n"""
        own.write_text((field.system.home / "broker.toml").read_text() + "\n" + peer.settings + "\n" + hook)
        yield post


def strike(post: Post, name: str, points: Iterator[tuple[Point, Fault]]) -> None:
    """Kill the command at each point, run it again, and compare the end."""
    post.begin(name)
    assert post.run(name).code == 0
    calm, wrong = post.end(), []
    for point, fault in points:
        post.begin(name)
        struck = post.run(name, at=point.number, fault=fault)
        post.free_the_lock()
        again = post.run(name)
        ended = post.end() if again.code == 0 else again.ended.err
        TALLY["kill points around mails"] += 1
        if struck.code != -signal.SIGKILL or ended != calm:
            wrong.append(f"{point} {fault['phase']}: {struck.code}, then {ended}\n  not {calm}")
    assert not wrong, f"{name}: " + "\n".join(wrong[:8])


def points_of(post: Post, name: str) -> tuple[Point, ...]:
    """Return the writes of a run with nothing in its way; mails are among them."""
    post.begin(name)
    ran = post.run(name)
    assert ran.code == 0, ran.ended.err
    mails = [point for point in ran.points if point.kind == "mail"]
    assert len(mails) == len(post.peer.mails) > 0
    assert bool(post.hooked.read_text()) is ("run" in name)
    return ran.points


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csr submit --via smtp", "rotation run --once"])
def test_a_mail_of_a_killed_command_has_one_id(post: Post, name: str) -> None:
    """At each mail, and at the write after it."""
    points = points_of(post, name)
    near = [p for p, before in zip(points, (points[0], *points), strict=False) if "mail" in (p.kind, before.kind)]
    strike(post, name, ((p, f) for p in near for f in KILLS))


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_mails_and_a_kill_at_every_write(post: Post, name: str) -> None:
    strike(post, name, ((p, f) for p in points_of(post, name) for f in KILLS))
