"""What is announced to services: which changes, once they are stored, and also after a kill or a failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.compose.graph import Wiring
from broker.model.names import AccountName
from broker.model.role import Role
from broker.vault import layout
from broker.vault.changes import announce, recent_changes
from broker.vault.connection import Connection, Phase
from tests.support.system import System
from tests.support.vault import TestVault

ACCOUNT = "accounts/acme"


class KilledError(Exception):
    """The process is killed."""


def heard(system: System) -> list[str]:
    return list(recent_changes(system.vault.admin).paths)


def test_no_concurrent_announcement_is_lost(vault: TestVault) -> None:
    vaults = [vault.connection(Role.ROTATOR), vault.connection(Role.OPERATOR)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: announce(vaults[n % 2], f"accounts/a-{n}"), range(12)))
    found = recent_changes(vault.connection(Role.SERVER))
    assert (found.number, len(set(found.paths))) == (12, 12)


def test_a_failure_ends_no_command(vault: TestVault) -> None:
    announce(vault.connection(Role.AUDITOR), ACCOUNT)
    assert recent_changes(vault.admin).number == 0


@pytest.mark.parametrize("damaged", [{}, {"schema": 2, "value": {"number": "x"}}, {"schema": 2, "value": None}])
def test_a_damaged_document_is_replaced(vault: TestVault, damaged: dict[str, object]) -> None:
    vault.admin.create(layout.CHANGES, damaged)
    announce(vault.connection(Role.ROTATOR), ACCOUNT)
    assert recent_changes(vault.admin).paths == (ACCOUNT,)


def test_a_document_of_a_newer_broker_stays(vault: TestVault) -> None:
    vault.admin.create(layout.CHANGES, {"schema": 99})
    announce(vault.connection(Role.ROTATOR), ACCOUNT)
    assert vault.admin.read(layout.CHANGES).data == {"schema": 99}


@pytest.mark.slow
def test_what_consumers_must_hear_is_announced(system: System) -> None:
    system.promoted()
    assert heard(system) == [ACCOUNT]
    system.consumer("acme/reporting")
    system.ok("password", "set", "acme", "--password-file", "-", input="another")
    system.ok("account", "set", "acme", "--renew-before", "30d")
    assert heard(system) == [ACCOUNT]
    system.ok("account", "suspend", "acme", "--reason", "stolen")
    system.ok("account", "suspend", "acme", "--reason", "stolen")
    assert heard(system) == [ACCOUNT] * 2
    system.ok("account", "resume", "acme")
    system.ok("bundle", "get", "acme/reporting", "--consumer-token-file", "reader.token", "--to", "bundle")
    assert heard(system) == [ACCOUNT] * 3
    holder = f"{system.vault.settings.mount}/reader"
    system.ok("lease", "revoke", "--account", "acme", "--consumer", holder, "--reason", "gone")
    (entity,) = system.vault.admin.list("consumers")
    assert heard(system)[3:] == [f"consumers/{entity}"]
    system.ok("app", "remove", "acme/reporting", "--yes")
    system.ok("account", "remove", "acme", "--force", "--reason", "over", "--yes")
    assert heard(system)[4:] == [ACCOUNT] * 2


@pytest.mark.slow
@pytest.mark.parametrize("phase", Phase)
def test_a_killed_announcement_is_made_later(system: System, phase: Phase) -> None:
    """The account's write has happened, so its evidence is due; the next command announces before it stores that."""
    system.added()

    def kill(now: Phase, path: str) -> None:
        if now is phase and path.endswith(f"/{'data/changes' if now is Phase.BEFORE else 'data/accounts/acme'}"):
            raise KilledError

    name = AccountName("acme")
    with system.broker(Wiring(observer=kill)) as broker, pytest.raises(KilledError):
        broker.registry.suspend(name, "stolen")
    assert system.account("acme").suspended
    assert not heard(system)
    with system.broker() as broker:
        broker.settle(name, Role.OPERATOR)
    assert heard(system) == [ACCOUNT]
    system.ok("evidence", "verify", "acme")


@pytest.mark.slow
def test_a_change_is_made_without_the_right_to_announce(system: System) -> None:
    """Policies of an earlier release lack it."""
    system.added()
    policy = f"{system.vault.settings.mount}/operator"
    admin: Connection = system.vault.admin
    text = admin.ask("GET", f"sys/policies/acl/{policy}")["data"]["policy"]
    lines = [line for line in text.splitlines() if "data/changes" not in line]
    admin.call("POST", f"sys/policies/acl/{policy}", {"policy": "\n".join(lines)})
    system.ok("account", "suspend", "acme", "--reason", "stolen")
    assert system.account("acme").suspended
    assert not system.account("acme").outbox
