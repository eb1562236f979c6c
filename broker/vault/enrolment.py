"""Give out logins: a secret-id for one of our roles, an AppRole with a named entity for a consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.errors import UnknownNameError
from broker.model.names import checked_name
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.faults import MissingError, UnclearError, UnmountedError
from broker.vault.logins import login_mount
from broker.vault.policies import Role, consumer_policy, policy_name

__all__ = ["AppRole", "consumer_role", "consumer_token", "enrol_consumer", "issue_login", "secret_id_works"]

_CONSUMER_TTL: Final = 20 * 60
_CONSUMER_MAX_TTL: Final = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class AppRole:
    """What one logs in with at `auth/<mount>/login`."""

    mount: str
    role_id: str
    secret_id: Secret[str]


def issue_login(vault: Connection, role: str) -> AppRole:
    """Return the role-id and a new secret-id of `role`, a `Role`'s value or a consumer's; those before stay valid.

    Raise `UnknownNameError` where the role was not set up. Needs rights that none of our roles has.
    """
    logins = login_mount(vault.settings.mount)
    base = f"auth/{logins}/role/{checked_name(role, 'role')}"
    try:
        role_id = _data(vault.ask("GET", f"{base}/role-id"), "role_id")
        secret_id = _data(vault.call("POST", f"{base}/secret-id", {}), "secret_id")
    except (MissingError, UnmountedError):
        raise UnknownNameError(f"this Vault has no login for {role}", hint="run: broker vault setup") from None
    return AppRole(logins, role_id, Secret(secret_id))


def secret_id_works(vault: Connection, role: str, secret_id: Secret[str]) -> bool:
    """Say whether Vault still knows `secret_id` as one of `role`."""
    path = f"auth/{login_mount(vault.settings.mount)}/role/{checked_name(role, 'role')}/secret-id/lookup"
    try:
        return bool(vault.ask("POST", path, {"secret_id": secret_id}).get("data"))
    except (MissingError, UnmountedError):
        return False


def consumer_role(name: str) -> str:
    """Return what the AppRole of the consumer `name` is called; it can never be one of our own roles."""
    assert all(not role.value.startswith("consumer-") for role in Role)
    return f"consumer-{checked_name(name, 'consumer')}"


def enrol_consumer(vault: Connection, name: str, rights: Sequence[str]) -> AppRole:
    """Make, or bring up to date, a login for consumer `name` with exactly `rights` (from `layout.right`).

    The consumer gets an entity of that name: it is what the broker knows it by, whatever it logs in with later.
    """
    mount, role = vault.settings.mount, consumer_role(name)
    logins, policy = login_mount(mount), policy_name(mount, role)
    vault.call("POST", f"sys/policies/acl/{policy}", {"policy": consumer_policy(rights)})
    body = {
        "token_policies": [policy],
        "token_no_default_policy": True,
        "token_ttl": _CONSUMER_TTL,
        "token_max_ttl": _CONSUMER_MAX_TTL,
    }
    vault.call("POST", f"auth/{logins}/role/{role}", {**body, "token_type": "service", "bind_secret_id": True})
    login = issue_login(vault, role)
    _name_entity(vault, name, login)
    return login


def consumer_token(vault: Connection, login: AppRole) -> Secret[str]:
    """Log in as `login` and return the token. Whoever gets it answers for it: it ends by itself."""
    body = {"role_id": login.role_id, "secret_id": login.secret_id}
    auth: Any = vault.ask("POST", f"auth/{login.mount}/login", body).get("auth")
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        raise UnclearError("Vault's answer to a login is no login")
    return Secret(auth["client_token"])


def _name_entity(vault: Connection, name: str, login: AppRole) -> None:
    entity_name = policy_name(vault.settings.mount, name)
    vault.call("POST", f"identity/entity/name/{entity_name}", {"metadata": {"consumer": name}})
    entity = _data(vault.ask("GET", f"identity/entity/name/{entity_name}"), "id")
    accessor = _accessor(vault, login.mount)
    alias = {"name": login.role_id, "canonical_id": entity, "mount_accessor": accessor}
    vault.call("POST", "identity/entity-alias", alias)


def _accessor(vault: Connection, login: str) -> str:
    found: Any = vault.ask("GET", "sys/auth").get("data")
    try:
        return str(found[f"{login}/"]["accessor"])
    except (KeyError, TypeError):
        raise UnclearError("Vault lists its logins in a way unknown to us") from None


def _data(answer: Any, name: str) -> str:
    value = (answer.get("data") or {}).get(name)
    if not isinstance(value, str):
        raise UnclearError(f"Vault's answer has no {name}")
    return value
