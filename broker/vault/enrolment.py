"""Give out logins: a secret-id for one of our roles, an AppRole with a named entity for a consumer."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from broker.errors import InputError, RefusedError, UnknownNameError
from broker.model.names import checked_name
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.errors import Document, UnclearError, field_of, unclear
from broker.vault.logins import content, granted
from broker.vault.ownership import found, require_set_up
from broker.vault.policies import consumer_policy, policy_kind, policy_name
from broker.vault.setup import LOGIN


def provide_login(vault: Connection, role: str, folder: Path, write: Callable[[Path, bytes], None]) -> bool:
    """Write `role_id` and `secret_id` of `role` into `folder`; return False if those there work, and are kept.

    A new secret-id does not expire. So we choose it, and write its file before Vault knows it: a kill at any point
    leaves no valid secret-id that is in no file. Raise `UnknownNameError` if the role was not set up. Needs rights that
    none of our roles has.
    """
    role_id = _role_id(vault, role)
    id_file, secret_file = folder / "role_id", folder / "secret_id"
    if content(id_file) != role_id:
        write(id_file, role_id.encode())
    if _is_known(vault, role, Secret(content(secret_file) or "")):
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
    """Raise `InputError` if `folder` has the login of another role than `role`, which may not exist yet.

    `provide_login` would overwrite it: its secret-id would stay valid, and be in no file.
    """
    held = content(folder / "role_id")
    with suppress(UnknownNameError):
        if not held or held == _role_id(vault, role):
            return
    hint = "name another directory; or, if that login is unused, remove role_id and secret_id there"
    raise InputError(f"{folder} holds another login than that of {role}", hint=hint)


def consumer_role(name: str) -> str:
    """Return the name of the consumer's AppRole; it can never be one of our own roles."""
    return f"consumer-{checked_name(name, 'consumer')}"


def enrol_consumer(vault: Connection, name: str, rights: Sequence[str]) -> None:
    """Make, or update, an AppRole for consumer `name` with exactly `rights` (from `layout.right`).

    The consumer gets an entity of that name: it identifies the consumer, for other logins too. `provide_login`
    then makes a login of its `consumer_role`. Raise `RefusedError` if others have a role, a policy or an
    entity of these names: nothing is changed then.
    """
    mount, login = vault.settings.mount, consumer_role(name)
    role, policy, entity = _base(vault, login), policy_name(mount, login), policy_name(mount, name)
    policy_path, entity_path = f"sys/policies/acl/{policy}", f"identity/entity/name/{entity}"
    text = consumer_policy(rights)
    require_set_up(vault)
    role_there, policy_there, entity_there = (found(vault, path) for path in (role, policy_path, entity_path))
    others = []
    if role_there is not None and policy not in (role_there.get("token_policies") or ()):
        others.append(f"the role {role}")
    if role_there is None and policy_there and policy_kind(str(policy_there.get("policy"))) != policy_kind(text):
        others.append(f"the policy {policy}")
    if entity_there is not None and (entity_there.get("metadata") or {}).get("consumer") != name:
        others.append(f"the entity {entity}")
    if others:
        message = f"{' and '.join(others)} exists, and broker vault enrol did not make it"
        raise RefusedError(message, hint="give the consumer another name")
    vault.call("POST", policy_path, {"policy": text})
    vault.call("POST", role, {**LOGIN, "token_policies": [policy]})
    vault.call("POST", entity_path, {"metadata": {"consumer": name}})
    alias = {
        "name": _role_id(vault, login),
        "canonical_id": _text(vault.ask("GET", entity_path), "id"),
        "mount_accessor": _text(vault.ask("GET", "sys/auth"), f"{mount}/", "accessor"),
    }
    vault.call("POST", "identity/entity-alias", alias)


def consumer_token(vault: Connection, role: str) -> tuple[Secret[str], int]:
    """Log in once as the consumer's `role`; return the token and its seconds. Nothing renews it."""
    role_id, limits = _role_id(vault, role), {"num_uses": 1, "ttl": "60s"}
    secret_id = Secret(_text(vault.call("POST", f"{_base(vault, role)}/secret-id", limits), "secret_id"))
    body = {"role_id": role_id, "secret_id": secret_id}
    grant = granted(vault.ask("POST", f"auth/{vault.settings.mount}/login", body))
    return grant.token, int(grant.seconds)


def _base(vault: Connection, role: str) -> str:
    return f"auth/{vault.settings.mount}/role/{checked_name(role, 'role')}"


def _role_id(vault: Connection, role: str) -> str:
    there = found(vault, f"{_base(vault, role)}/role-id")
    if there is None:
        raise UnknownNameError(f"this Vault has no login for {role}", hint="run: broker vault setup")
    return _text({"data": there}, "role_id")


def _is_known(vault: Connection, role: str, secret_id: Secret[str]) -> bool:
    """Return whether Vault would accept `secret_id` for `role`."""
    lookup = f"{_base(vault, role)}/secret-id/lookup"
    return bool(secret_id.reveal() and found(vault, lookup, "POST", {"secret_id": secret_id}))


def _text(answer: Document, *names: str) -> str:
    """Return the text at `names` in the data of an answer."""
    value = field_of(answer, "data", *names)
    if not isinstance(value, str):
        raise unclear(names[-1])
    return value
