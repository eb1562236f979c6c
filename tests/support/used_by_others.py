"""A Vault that has other users: their mounts, data, policies and logins, and an administrator without root."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from broker.copies import replace
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.logins import FixedToken
from broker.vault.ownership import found
from broker.vault.settings import VaultSettings
from tests.support.vault import AppRole, admin_token, issue_login, login, with_root_token

__all__ = ["UsedByOthers", "others_vault", "used_by_others"]

_POLICIES: Final = {
    "ci": 'path "secret/data/ci/*" { capabilities = ["create", "read", "update"] }',
    "web": 'path "kv/platform/*" { capabilities = ["create", "read", "update", "list"] }',
}


@dataclass(frozen=True, slots=True)
class UsedByOthers:
    """The Vault. `settings` has no token; `root` makes what a test needs, and no more."""

    settings: VaultSettings
    root: Connection
    before: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a shell that reaches it, without a token."""
        return {"VAULT_ADDR": self.settings.address}

    def admin_token(self, *mounts: str) -> Secret[str]:
        """Return a token with the rights of an administrator of the broker on `mounts`, and no others."""
        return admin_token(self.root, *mounts)

    def holder(self, token: Secret[str]) -> Connection:
        """Return a connection of who holds `token`."""
        return Connection(self.settings, FixedToken(token))

    def assert_untouched(self) -> None:
        """Assert that the others have what they had, and that they work as before."""
        assert _theirs(self.root) == self.before
        colleague = self.holder(login(self.root, _ci_login(self.root)))
        colleague.call("POST", "secret/data/ci/build", {"data": {"number": "8"}})  # as `bao kv put`: no check-and-set
        assert colleague.ask("GET", "secret/data/ci/build")["data"]["data"] == {"number": "8"}
        colleague.close()


@contextmanager
def used_by_others() -> Iterator[UsedByOthers]:
    """Yield a server of its own, with a TCP listener."""
    with with_root_token() as settings:
        assert settings.token
        root = Connection(settings, FixedToken(settings.token))
        _fill(root)
        try:
            yield UsedByOthers(replace(settings, token=None), root, _theirs(root))
        finally:
            root.close()


@pytest.fixture
def others_vault() -> Iterator[UsedByOthers]:
    """A Vault that has other users, and nothing of the broker."""
    with used_by_others() as made:
        yield made


def _fill(root: Connection) -> None:
    """Make the others' things. A dev server has `secret/`, KV of version 2."""
    kv = {"type": "kv", "description": "team platform", "options": {"version": "2"}}
    root.call("POST", "sys/mounts/kv/platform", kv)
    root.call("POST", "sys/mounts/legacy", {"type": "kv", "options": {"version": "1"}})
    root.call("POST", "sys/mounts/crypt", {"type": "transit"})
    root.ask("GET", "kv/platform/config")  # a new mount needs a moment
    root.call("POST", "kv/platform/config", {"max_versions": 3})
    for path in ("secret/data/app/db", "secret/data/ci/build", "kv/platform/data/tls"):
        root.call("POST", path, {"data": {"password": "theirs"}})
    root.call("POST", "legacy/app", {"password": "theirs"})
    for name, policy in _POLICIES.items():
        root.call("POST", f"sys/policies/acl/{name}", {"policy": policy})
    root.call("POST", "sys/auth/approle", {"type": "approle"})
    root.call("POST", "auth/approle/role/ci", {"token_policies": ["ci"]})
    root.call("POST", "sys/auth/userpass", {"type": "userpass"})
    root.call("POST", "auth/userpass/users/web", {"password": "theirs", "token_policies": ["web"]})
    root.call("POST", "identity/entity/name/web", {"policies": ["web"]})


def _theirs(root: Connection) -> Mapping[str, Any]:
    """Return all of theirs that anybody could change."""
    mounts, logins = found(root, "sys/mounts") or {}, found(root, "sys/auth") or {}
    return {
        "mounts": {path: mounts.get(path) for path in ("secret/", "kv/platform/", "legacy/", "crypt/")},
        "logins": {path: logins.get(path) for path in ("approle/", "userpass/", "token/")},
        "settings": [found(root, path) for path in ("secret/config", "kv/platform/config", "sys/auth/approle/tune")],
        "data": [found(root, path) for path in ("secret/data/app/db", "kv/platform/data/tls", "legacy/app")],
        "policies": [found(root, f"sys/policies/acl/{name}") for name in (*_POLICIES, "default")],
        "roles": [found(root, path) for path in ("auth/approle/role/ci", "auth/userpass/users/web")],
        "entity": found(root, "identity/entity/name/web"),
    }


def _ci_login(root: Connection) -> AppRole:
    return issue_login(Connection(replace(root.settings, mount="approle"), root.tokens), "ci")
