"""The broker's own logins at Vault: one file for each method, and their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from broker.errors import InputError
from broker.vault.logins.approle import AppRoleLogin
from broker.vault.logins.source import TokenSource
from broker.vault.logins.token import FileToken, FixedToken

if TYPE_CHECKING:  # it imports this package
    from broker.vault.connection import Connection

__all__ = ["METHODS", "Login", "login_mount", "token_source"]

Login = Callable[["Connection", Mapping[str, str]], TokenSource]  # (a connection without a token, options)


def token_source(method: str, vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """Return the login `method` with its `options`; raise `InputError` for an unknown method or a missing option.

    `vault` has no token. Nothing is sent or read yet.
    """
    login = METHODS.get(method)
    if login is None:
        raise InputError(f"there is no login method {method}", hint=f"use one of {', '.join(sorted(METHODS))}")
    return login(vault, options)


def login_mount(mount: str) -> str:
    """Return the auth path, without `auth/`, of the AppRole logins of a broker under `mount`."""
    return mount


def _token(vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """Return the login by the file named by `file`, else by the token of the settings (VAULT_TOKEN)."""
    if vault.settings.token and not options.get("file"):
        return FixedToken(vault.settings.token)
    return FileToken(_file(options, "token", "file"))


def _approle(vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """Return the login by `role_id_file` and `secret_id_file` at `mount`, by default the broker's own."""
    role_id, secret_id = (_file(options, "approle", name) for name in ("role_id_file", "secret_id_file"))
    return AppRoleLogin(vault, role_id, secret_id, mount=options.get("mount") or login_mount(vault.settings.mount))


def _file(options: Mapping[str, str], method: str, name: str) -> Path:
    if not options.get(name):
        raise InputError(f"the login {method} needs {name}", hint="set it in broker.toml, in [login] or [roles.NAME]")
    return Path(options[name])


METHODS: Final[Mapping[str, Login]] = MappingProxyType({"approle": _approle, "token": _token})
