"""Logins at the broker's AppRole mount: role_id and secret_id in files, for one of our roles or a consumer."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker.errors import InputError, UnknownNameError
from broker.model.names import checked_name
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.errors import Document, UnclearError, field_of, unclear
from broker.vault.logins import content, granted
from broker.vault.ownership import found, looked_up


def provide_login(vault: Connection, role: str, folder: Path, write: Callable[[Path, bytes], None]) -> bool:
    """Write `role_id` and `secret_id` of `role` into `folder`; return False if those there work, and are kept.

    A new secret-id does not expire. So we choose it, and write its file before Vault knows it: a kill at any point
    leaves no valid secret-id that is in no file. Raise `UnknownNameError` if the role was not set up. Needs rights that
    none of our roles has.
    """
    known = role_id(vault, role)
    id_file, secret_file = folder / "role_id", folder / "secret_id"
    if content(id_file) != known:
        write(id_file, known.encode())
    if _is_known(vault, role, Secret(content(secret_file) or "")):
        return False
    secret_id = Secret(secrets.token_urlsafe(32))
    write(secret_file, secret_id.reveal().encode())
    try:
        vault.call("POST", f"{role_path(vault, role)}/custom-secret-id", {"secret_id": secret_id})
    except UnclearError:  # sent again after its answer was lost, it meets itself
        if not _is_known(vault, role, secret_id):
            raise
    return True


def login_paths(vault: Connection) -> list[str]:
    """Return the paths of Vault that `provide_login` needs, for all roles."""
    names = ("role-id", "secret-id/lookup", "custom-secret-id")
    return [f"{role_path(vault, role.value)}/{name}" for role in Role for name in names]


def require_no_others_login(vault: Connection, role: str, folder: Path) -> None:
    """Raise `InputError` if `folder` has the login of another role than `role`, which may not exist yet.

    `provide_login` would overwrite it: its secret-id would stay valid, and be in no file.
    """
    held = content(folder / "role_id")
    with suppress(UnknownNameError):
        if not held or held == role_id(vault, role):
            return
    hint = "name another directory; or, if that login is unused, remove role_id and secret_id there"
    raise InputError(f"{folder} holds another login than that of {role}", hint=hint)


def single_login(vault: Connection, role: str) -> tuple[Secret[str], int]:
    """Log in once as `role`; return the token and its seconds. Nothing renews it."""
    limits = {"num_uses": 1, "ttl": "60s"}
    secret_id = Secret(text(vault.call("POST", f"{role_path(vault, role)}/secret-id", limits), "secret_id"))
    body = {"role_id": role_id(vault, role), "secret_id": secret_id}
    grant = granted(vault.ask("POST", f"auth/{vault.settings.mount}/login", body))
    return grant.token, int(grant.seconds)


def role_path(vault: Connection, role: str) -> str:
    """Return the path of an AppRole in Vault's API."""
    return f"auth/{vault.settings.mount}/role/{checked_name(role, 'role')}"


def role_id(vault: Connection, role: str) -> str:
    """Return the role-id of an AppRole; raise `UnknownNameError`."""
    there = found(vault, f"{role_path(vault, role)}/role-id", "role_id")
    if there is None:
        raise UnknownNameError(f"this Vault has no login for {role}", hint="run: broker vault setup")
    return text({"data": there}, "role_id")


def _is_known(vault: Connection, role: str, secret_id: Secret[str]) -> bool:
    """Return whether Vault would accept `secret_id` for `role`."""
    lookup, body = f"{role_path(vault, role)}/secret-id/lookup", {"secret_id": secret_id}
    return bool(secret_id.reveal() and looked_up(vault, lookup, body, "secret_id_accessor"))


def text(answer: Document, *names: str) -> str:
    """Return the text at `names` in the data of an answer."""
    value = field_of(answer, "data", *names)
    if not isinstance(value, str):
        raise unclear(names[-1])
    return value
