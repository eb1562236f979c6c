"""Give out logins: a secret-id for one of our roles, an AppRole with a named entity for a consumer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from broker.errors import InputError, RefusedError, UnknownNameError
from broker.model.names import checked_name
from broker.model.secret import Secret
from broker.paths import read_file
from broker.vault.connection import Connection, Document
from broker.vault.errors import MissingError, UnclearError, UnmountedError
from broker.vault.logins import login_mount
from broker.vault.ownership import found, require_set_up
from broker.vault.policies import Role, consumer_policy, policy_kind, policy_name

__all__ = [
    "ONCE",
    "AppRole",
    "consumer_role",
    "consumer_token",
    "enrol_consumer",
    "issue_login",
    "provide_login",
    "require_no_others_login",
]

ONCE: Final[Document] = MappingProxyType({"num_uses": 1, "ttl": "60s"})  # a secret-id for one login, at once
_UNLIMITED: Final[Document] = MappingProxyType({})
_CONSUMER_TTL: Final = 20 * 60
_CONSUMER_MAX_TTL: Final = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class AppRole:
    """What one logs in with at `auth/<mount>/login`."""

    mount: str
    role_id: str
    secret_id: Secret[str]


def issue_login(vault: Connection, role: str, limits: Document = _UNLIMITED) -> AppRole:
    """Return the role-id and a new secret-id of `role`, a `Role`'s value or a consumer's; those before stay valid.

    Raise `UnknownNameError` where the role was not set up. Needs rights that none of our roles has.
    """
    role_id = _role_id(vault, role)
    secret_id = _data(vault.call("POST", f"{_base(vault, role)}/secret-id", limits), "secret_id")
    return AppRole(login_mount(vault.settings.mount), role_id, Secret(secret_id))


def provide_login(vault: Connection, role: str, folder: Path, write: Callable[[Path, bytes], None]) -> bool:
    """See that `folder` holds `role_id` and `secret_id` of `role`; return False where those there work, and are kept.

    A new secret-id has no end. So it is ours to choose, and in its file before Vault knows it: wherever we are killed,
    none is valid that nobody has. Raises as `issue_login`.
    """
    role_id = _role_id(vault, role)
    id_file, secret_file = folder / "role_id", folder / "secret_id"
    if _content(id_file) != role_id:
        write(id_file, role_id.encode())
    if _is_known(vault, role, Secret(_content(secret_file))):
        return False
    secret_id = Secret(secrets.token_urlsafe(32))
    write(secret_file, secret_id.reveal().encode())
    try:
        vault.call("POST", f"{_base(vault, role)}/custom-secret-id", {"secret_id": secret_id})
    except UnclearError:  # sent again after its answer was lost, it meets itself
        if not _is_known(vault, role, secret_id):
            raise
    return True


def require_no_others_login(vault: Connection, role: str, folder: Path) -> None:
    """Raise `InputError` where `folder` has a login that is not of `role`, which may not be there yet.

    `provide_login` would put another in its place: its secret-id would stay valid, and nobody would have it.
    """
    held = _content(folder / "role_id")
    if not held:
        return
    try:
        ours = _role_id(vault, role)
    except UnknownNameError:
        ours = ""
    if held != ours:
        raise InputError(
            f"{folder} holds another login than that of {role}",
            hint="name another directory; or, if nobody works with it, remove role_id and secret_id there",
        )


def consumer_role(name: str) -> str:
    """Return what the AppRole of the consumer `name` is called; it can never be one of our own roles."""
    assert all(not role.value.startswith("consumer-") for role in Role)
    return f"consumer-{checked_name(name, 'consumer')}"


def enrol_consumer(vault: Connection, name: str, rights: Sequence[str]) -> None:
    """Make, or bring up to date, an AppRole for consumer `name` with exactly `rights` (from `layout.right`).

    The consumer gets an entity of that name: it is what the broker knows it by, whatever it logs in with later. What
    it logs in with here is made by `provide_login` or `issue_login`, for its `consumer_role`. Raise `RefusedError` if
    somebody else has a role, a policy or an entity of these names: nothing is changed then.
    """
    mount, role = vault.settings.mount, consumer_role(name)
    policy, text = policy_name(mount, role), consumer_policy(rights)
    require_set_up(vault)
    _require_own(vault, name, policy, text)
    vault.call("POST", f"sys/policies/acl/{policy}", {"policy": text})
    body = {
        "token_policies": [policy],
        "token_no_default_policy": True,
        "token_ttl": _CONSUMER_TTL,
        "token_max_ttl": _CONSUMER_MAX_TTL,
    }
    vault.call("POST", _base(vault, role), {**body, "token_type": "service", "bind_secret_id": True})
    _name_entity(vault, name, _role_id(vault, role))


def consumer_token(vault: Connection, login: AppRole) -> tuple[Secret[str], int]:
    """Log in as `login`; return the token and its seconds. Whoever gets it answers for it: it ends by itself."""
    body = {"role_id": login.role_id, "secret_id": login.secret_id}
    auth: Any = vault.ask("POST", f"auth/{login.mount}/login", body).get("auth")
    try:
        return Secret(str(auth["client_token"])), int(auth["lease_duration"])
    except (KeyError, TypeError, ValueError):
        raise UnclearError("Vault's answer to a login is no login") from None


def _base(vault: Connection, role: str) -> str:
    return f"auth/{login_mount(vault.settings.mount)}/role/{checked_name(role, 'role')}"


def _role_id(vault: Connection, role: str) -> str:
    try:
        return _data(vault.ask("GET", f"{_base(vault, role)}/role-id"), "role_id")
    except (MissingError, UnmountedError):
        raise UnknownNameError(f"this Vault has no login for {role}", hint="run: broker vault setup") from None


def _is_known(vault: Connection, role: str, secret_id: Secret[str]) -> bool:
    """Say whether Vault would take `secret_id` as one of `role`."""
    if not secret_id.reveal():
        return False
    try:
        found = vault.ask("POST", f"{_base(vault, role)}/secret-id/lookup", {"secret_id": secret_id})
    except (MissingError, UnmountedError):
        return False
    return bool(found.get("data"))


def _content(file: Path) -> str:
    try:
        return read_file(file).decode("ascii").strip()
    except (OSError, ValueError):
        return ""


def _require_own(vault: Connection, name: str, policy: str, text: str) -> None:
    role, entity = _base(vault, consumer_role(name)), policy_name(vault.settings.mount, name)
    role_there = found(vault, role)
    policy_there = found(vault, f"sys/policies/acl/{policy}")
    entity_there = found(vault, f"identity/entity/name/{entity}")
    others = []
    if role_there is not None and policy not in (role_there.get("token_policies") or ()):
        others.append(f"the role {role}")
    if (
        role_there is None
        and policy_there is not None
        and policy_kind(str(policy_there.get("policy"))) != policy_kind(text)
    ):
        others.append(f"the policy {policy}")
    if entity_there is not None and (entity_there.get("metadata") or {}).get("consumer") != name:
        others.append(f"the entity {entity}")
    if others:
        raise RefusedError(
            f"{' and '.join(others)} is there, and broker vault enrol did not make it",
            hint="give the consumer another name",
        )


def _name_entity(vault: Connection, name: str, role_id: str) -> None:
    entity_name = policy_name(vault.settings.mount, name)
    vault.call("POST", f"identity/entity/name/{entity_name}", {"metadata": {"consumer": name}})
    entity = _data(vault.ask("GET", f"identity/entity/name/{entity_name}"), "id")
    accessor = _accessor(vault, login_mount(vault.settings.mount))
    alias = {"name": role_id, "canonical_id": entity, "mount_accessor": accessor}
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
