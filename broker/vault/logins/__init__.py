"""How the broker gets its own token: one file for each of Vault's ways in, and their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from broker.errors import InputError

if TYPE_CHECKING:
    from broker.vault.connection import Connection
    from broker.vault.logins.source import TokenSource

__all__ = ["METHODS", "Login", "login_mount", "token_source"]

Login = Callable[["Connection", Mapping[str, str]], "TokenSource"]  # (a connection without a token, options)


def token_source(method: str, vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """Return the login `method` with its `options`; raise `InputError` on an unknown method or a missing option.

    `vault` has no token of its own. Nothing is asked or read yet.
    """
    login = METHODS.get(method)
    if login is None:
        raise InputError(f"no way to log in at Vault is called {method}", hint=f"one of {', '.join(sorted(METHODS))}")
    return login(vault, options)


def login_mount(mount: str) -> str:
    """Return where the AppRole logins of a broker under `mount` are: an auth path, without `auth/`."""
    return mount


def _token(vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """The file named by `file`, else the token of the settings (VAULT_TOKEN)."""
    from broker.vault.logins.token import FileToken, FixedToken

    if vault.settings.token and not options.get("file"):
        return FixedToken(vault.settings.token)
    return FileToken(Path(_option(options, "token", "file")))


def _approle(vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """`role_id_file`, `secret_id_file`, and `mount`, which is the broker's own where it is not named."""
    from broker.vault.logins.approle import AppRoleLogin

    role_id, secret_id = _option(options, "approle", "role_id_file"), _option(options, "approle", "secret_id_file")
    return AppRoleLogin(
        vault, Path(role_id), Path(secret_id), mount=options.get("mount") or login_mount(vault.settings.mount)
    )


def _option(options: Mapping[str, str], method: str, name: str) -> str:
    if not options.get(name):
        raise InputError(f"the login {method} needs {name}", hint="name it in broker.toml, in [login] or [roles.NAME]")
    return options[name]


METHODS: Final[Mapping[str, Login]] = MappingProxyType({"approle": _approle, "token": _token})
