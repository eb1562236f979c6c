"""Health of Vault, with a short time-out, and the rights that a role lacks."""

from __future__ import annotations

from typing import Any

import pytest

from broker.model.role import Role
from broker.vault import health as module
from broker.vault.connection import Connection
from broker.vault.errors import PassingError
from broker.vault.health import health, lacking
from broker.vault.policies import policy_name, role_policy
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.support.vault import TestVault

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("patience", "waits"), [(60.0, 3.0), (0.1, 0.1)])
def test_health_waits_three_seconds(monkeypatch: pytest.MonkeyPatch, patience: float, waits: float) -> None:
    asked: list[float] = []

    class Away(Connection):
        def ask(self, *_: Any, **__: Any) -> Any:
            asked.append(self.settings.patience)
            raise PassingError("away")

    monkeypatch.setattr(module, "Connection", Away)
    with pytest.raises(PassingError):
        health(VaultSettings("http://127.0.0.1:1", patience=patience))
    assert asked == [waits]


@pytest.mark.parametrize("role", Role)
def test_each_missing_right_is_named(vault: TestVault, role: Role) -> None:
    mount = vault.settings.mount
    connection = vault.connection(role)
    assert lacking(connection, role) == []
    lines = role_policy(role, mount=mount).splitlines()
    dropped = next(line for line in lines if line.startswith("path"))
    policy = "\n".join(line for line in lines if line != dropped)
    vault.admin.call("POST", f"sys/policies/acl/{policy_name(mount, role.value)}", {"policy": policy})
    lacks = lacking(connection, role)
    assert lacks
    path = dropped.split('"')[1]
    assert {right.split(" on ")[1] for right in lacks} == {path}


def test_role_of_some_accounts_lacks_nothing(vault: TestVault) -> None:
    apply(vault.admin, plan(vault.admin, Wish(accounts=("mzp-1",))))
    for role in Role:
        assert lacking(vault.connection(role), role) == []


def test_older_policy_lacks_rights(vault: TestVault) -> None:
    """Version 0.1.0 knew no named secrets but passwords."""
    mount = vault.settings.mount
    lines = role_policy(Role.SERVER, mount=mount).splitlines()
    policy = "\n".join(line for line in lines if "/secrets/" not in line)
    vault.admin.call("POST", f"sys/policies/acl/{policy_name(mount, 'server')}", {"policy": policy})
    assert lacking(vault.connection(Role.SERVER), Role.SERVER) == [f"read on {mount}/data/secrets/+/+/+"]
