"""Announcements of changes: before they are written, noted after that, and kept after a kill."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.compose.graph import Wiring
from broker.errors import DeniedError
from broker.model.names import AccountName
from broker.model.recent_changes import RecentChanges
from broker.model.role import Role
from broker.vault import layout
from broker.vault.changes import Announcements, recent_changes
from broker.vault.connection import Connection, Phase
from tests.support.system import System
from tests.support.vault import TestVault

ACCOUNT = "accounts/acme"


class KilledError(Exception):
    """The process is killed."""


def heard(system: System) -> list[str]:
    return list(recent_changes(system.vault.admin).paths)


def pending(system: System) -> dict[str, int]:
    return dict(recent_changes(system.vault.admin).pending)


def test_no_concurrent_announcement_is_lost(vault: TestVault) -> None:
    vaults = [Announcements(vault.connection(role)) for role in (Role.ROTATOR, Role.OPERATOR)]

    def announce(number: int) -> None:
        vaults[number % 2].begin(f"accounts/a-{number}", 1)
        vaults[number % 2].done(f"accounts/b-{number}", 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(announce, range(12)))
    found = recent_changes(vault.connection(Role.SERVER))
    assert (found.number, len(set(found.paths)), len(found.pending)) == (12, 12, 12)


def test_unannounced_change_is_not_written(vault: TestVault) -> None:
    unable = Announcements(vault.connection(Role.AUDITOR))
    with pytest.raises(DeniedError):
        unable.begin(ACCOUNT, 1)
    unable.done(ACCOUNT, 1)
    assert recent_changes(vault.admin) == RecentChanges()


@pytest.mark.parametrize("damaged", [{}, {"schema": 2, "value": {"number": "x"}}, {"schema": 2, "value": None}])
def test_a_damaged_document_is_replaced(vault: TestVault, damaged: dict[str, object]) -> None:
    vault.admin.create(layout.CHANGES, damaged)
    Announcements(vault.connection(Role.ROTATOR)).begin(ACCOUNT, 3)
    assert recent_changes(vault.admin).pending == {ACCOUNT: 3}


def test_a_document_of_a_newer_broker_stays(vault: TestVault) -> None:
    vault.admin.create(layout.CHANGES, {"schema": 99})
    Announcements(vault.connection(Role.ROTATOR)).done(ACCOUNT, 1)
    assert vault.admin.read(layout.CHANGES).data == {"schema": 99}


@pytest.mark.slow
def test_what_consumers_must_hear_is_announced(system: System) -> None:
    system.promoted()
    assert heard(system) == [ACCOUNT] * 3  # the application, its client_id, the promotion
    system.consumer("acme/reporting")
    system.ok("password", "set", "acme", "--password-file", "-", input="another")
    system.ok("account", "set", "acme", "--renew-before", "30d")
    assert heard(system) == [ACCOUNT] * 3
    system.ok("account", "suspend", "acme", "--reason", "stolen")
    system.ok("account", "suspend", "acme", "--reason", "stolen")
    assert heard(system) == [ACCOUNT] * 4
    system.ok("account", "resume", "acme")
    system.ok("bundle", "get", "acme/reporting", "--consumer-token-file", "reader.token", "--to", "bundle")
    assert heard(system) == [ACCOUNT] * 5
    holder = f"{system.vault.settings.mount}/reader"
    system.ok("lease", "revoke", "--account", "acme", "--consumer", holder, "--reason", "gone")
    (entity,) = system.vault.admin.list("consumers")
    assert heard(system)[5:] == [f"consumers/{entity}"]
    system.ok("app", "remove", "acme/reporting", "--yes")
    system.ok("account", "remove", "acme", "--force", "--reason", "over", "--yes")
    assert heard(system)[6:] == [ACCOUNT] * 2
    assert not pending(system)


@pytest.mark.slow
@pytest.mark.parametrize(("killed_at", "written"), [(2, False), (3, True), (4, True)])
def test_a_killed_change_stays_announced(system: System, killed_at: int, written: bool) -> None:
    """So services read the account each second, until the next change of it. It is written between the two others."""
    system.added()
    moments: list[str] = []

    def kill(phase: Phase, path: str) -> None:
        moments.append(path)
        if len(moments) > killed_at:
            raise KilledError

    name, version, before = AccountName("acme"), system.vault.admin.read(ACCOUNT).version, heard(system)
    with system.broker(Wiring(observer=kill)) as broker, pytest.raises(KilledError):
        broker.registry.suspend(name, "stolen")
    assert bool(system.account("acme").suspended) is written
    assert (heard(system), pending(system)) == (before, {ACCOUNT: version})
    with system.broker() as broker:
        broker.registry.suspend(name, "stolen")
        broker.registry.resume(name)
    assert not pending(system)
    assert len(heard(system)) > len(before)
    system.ok("evidence", "verify", "acme")


@pytest.mark.slow
def test_a_lost_race_is_announced_again(system: System) -> None:
    """Each attempt names the version that it would replace; none is left over."""
    system.added()
    name = AccountName("acme")
    raced: list[dict[str, int]] = []

    def race(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE and path.endswith("/data/accounts/acme") and not raced:
            raced.append(pending(system))
            system.ok("app", "set", "acme/reporting", "--client-id", "first")

    with system.broker(Wiring(observer=race)) as broker:
        broker.registry.suspend(name, "stolen")
    assert raced[0]
    assert not pending(system)
    assert system.account("acme").suspended


@pytest.mark.slow
def test_no_change_without_right_to_announce(system: System) -> None:
    """Policies of an earlier release lack it: services would go on with what they have read."""
    system.added()
    policy = f"{system.vault.settings.mount}/operator"
    admin: Connection = system.vault.admin
    text = admin.ask("GET", f"sys/policies/acl/{policy}")["data"]["policy"]
    lines = [line for line in text.splitlines() if "data/changes" not in line]
    admin.call("POST", f"sys/policies/acl/{policy}", {"policy": "\n".join(lines)})
    refused = system.run("account", "suspend", "acme", "--reason", "stolen")
    assert (refused.code, "role operator lacks" in refused.err) == (5, True), refused.err
    assert not system.account("acme").suspended
    system.ok("account", "set", "acme", "--renew-before", "30d")
