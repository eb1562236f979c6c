"""Every denial names who, what is missing where, and a command that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from broker.errors import DeniedError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import ADMIN_HINT, ADMINISTRATOR, Connection
from broker.vault.errors import LackingError
from broker.vault.logins import FixedToken
from tests.support.matrix import CONSUMER
from tests.support.vault import TestVault, token_of

pytestmark = pytest.mark.slow

# what is tried; the capability and path that it needs
CALLS: Final[tuple[tuple[Callable[[Connection], object], str, str], ...]] = (
    (lambda vault: vault.read("signers/other"), "read", "data/signers/other"),
    (lambda vault: vault.list("signers"), "list", "metadata/signers/"),
    (lambda vault: vault.create("signers/other", {}), "create", "data/signers/other"),
    (lambda vault: vault.write("signers/other", {}, replacing=3), "update", "data/signers/other"),
    (lambda vault: vault.versions("signers/other"), "read", "metadata/signers/other"),
    (lambda vault: vault.call("POST", f"{vault.settings.mount}/destroy/signers/a", {}), "update", "destroy/signers/a"),
    (lambda vault: vault.call("DELETE", f"{vault.settings.mount}/data/signers/other"), "delete", "data/signers/other"),
)  # fmt: skip


def held(vault: TestVault, role: str) -> Connection:
    return Connection(vault.settings, FixedToken(vault.token(role)), holder=f"role {role}")


@pytest.mark.parametrize("role", [role.value for role in Role])
def test_denial_names_role_path_and_right(vault: TestVault, role: str) -> None:
    connection = held(vault, role)
    for attempt, capability, path in CALLS:
        with pytest.raises(LackingError) as caught:
            attempt(connection)
        assert caught.value.message == f"role {role} lacks {capability} on {vault.settings.mount}/{path}"
        assert caught.value.hint == "broker doctor"
    connection.close()


def test_overwriting_needs_update(vault: TestVault) -> None:
    """The rotator may create a key, and not replace it."""
    vault.admin.create("keys/a/1", {})
    rotator = held(vault, "rotator")
    with pytest.raises(LackingError, match=r"role rotator lacks update on .*/data/keys/a/1"):
        rotator.write("keys/a/1", {}, replacing=1)
    rotator.close()


def test_a_consumers_token_is_named_too(vault: TestVault) -> None:
    connection = Connection(vault.settings, FixedToken(vault.token(CONSUMER)), holder="consumer any")
    with pytest.raises(DeniedError) as caught:
        connection.read("accounts/a")
    assert "consumer any" in caught.value.message
    assert f"{vault.settings.mount}/data/accounts/a" in caught.value.message
    connection.close()


def test_dead_token_is_not_a_missing_right(vault: TestVault) -> None:
    dead = Connection(vault.settings, FixedToken(Secret("s.aaaaaaaaaaaaaaaaaaaaaaaa")), holder="role rotator")
    with pytest.raises(DeniedError, match="to role rotator: its token is expired or revoked") as caught:
        dead.read("accounts/a")
    assert not isinstance(caught.value, LackingError)
    assert "bao login" in caught.value.hint
    dead.close()


def test_sudo_is_named(vault: TestVault) -> None:
    """Vault wants sudo to mount a login, beside update."""
    path = f"sys/auth/other-{vault.settings.mount}"
    policy = f"no-sudo-{vault.settings.mount}"
    vault.admin.call(
        "POST", f"sys/policies/acl/{policy}", {"policy": f'path "{path}" {{ capabilities = ["create", "update"] }}'}
    )
    administrator = Connection(
        vault.settings, FixedToken(token_of(vault.admin, policies=[policy])), holder=ADMINISTRATOR
    )
    with pytest.raises(LackingError) as caught:
        administrator.call("POST", path, {"type": "approle"})
    assert caught.value.message == f"the administrator lacks sudo on {path}"
    assert caught.value.hint == ADMIN_HINT
    administrator.close()
