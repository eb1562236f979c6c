"""How each role logs in to Vault on this host, and where the embedded vault is. Asks Vault nothing."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.config import Config
from broker.embedded.home import Home
from broker.errors import InputError
from broker.model.role import Role

TOKENS: Final = ("BAO_TOKEN", "VAULT_TOKEN")  # the first that is set wins


class Way(Struct, frozen=True):
    """How a role logs in, and the source of that: a file, $VAULT_TOKEN, or the embedded vault."""

    method: str
    options: Mapping[str, str]
    source: str

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the role logs in with."""
        return tuple(path for key, path in self.options.items() if key.endswith("file"))

    @property
    def borrowed(self) -> bool:
        """Whether the role uses a token from the environment, which may be any user's."""
        return self.source.startswith("$")


def signing_paths(config: Config) -> Mapping[Role, tuple[str, ...]]:
    """Return where a PKI engine of Vault signs for each role, by the configuration."""
    accounts = [own["pki"] for own in config.accounts.values() if "pki" in own]
    named = {Role.SERVER: ("sign", [config["serve.tls_pki"]]), Role.ROTATOR: ("sign-verbatim", accounts)}
    paths = dict.fromkeys(Role, tuple[str, ...]())
    for role, (verb, roles) in named.items():
        paths[role] = tuple(f"/{verb}/".join(name.rsplit("/", 1)) for name in sorted(set(roles)) if name)
    return paths


class Ways:
    """The ways to log in that configuration and environment give."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self.config = config
        self._environment = environment

    @cached_property
    def home(self) -> Home:
        """The directory of the embedded vault, which may not exist yet; raise `InputError` if it cannot be read."""
        home = Home(Path(self.config["embedded.directory"]))
        try:
            home.initialized.exists()
        except OSError as error:
            raise InputError(
                f"embedded.directory: {str(home.root)[:80]}: {error.strerror}", hint="choose another directory"
            ) from None
        return home

    @property
    def is_embedded(self) -> bool:
        """Whether the vault is the embedded one."""
        address = self.config["vault.address"]
        return self._embedded_by_default or (address.startswith("unix:") and address == f"unix://{self.home.socket}")

    @property
    def _embedded_by_default(self) -> bool:
        return not self.config["vault.address"] and self.home.initialized.exists()

    def way(self, role: Role) -> Way | None:
        """Return how `role` logs in on this host, None if nothing configures it.

        The configuration of a role wins over VAULT_TOKEN, which serves the roles without one (ADR 17).
        """
        named = self.config.logins.get(role.value) or self.config.logins.get("default")
        token = next((f"${name}" for name in TOKENS if self._environment.get(name)), "")
        if named:
            method, options = named.get("method", "approle"), {k: v for k, v in named.items() if k != "method"}
            borrowed = method == "token" and not options.get("file") and token
            return Way(method, options, borrowed or str(self.config.file))
        if token and not self._embedded_by_default:
            return Way("token", {}, token)
        if self.is_embedded:
            folder = self.home.roles / role.value
            return Way("approle", {f"{n}_file": str(folder / n) for n in ("role_id", "secret_id")}, "embedded vault")
        return None

    @property
    def here(self) -> tuple[Role, ...]:
        """The roles that have a way to log in: a host needs only those that work on it."""
        return tuple(role for role in Role if self.way(role))

    def may_try(self, role: Role) -> bool:
        """Return whether the files that `role` logs in with can be read: a host has those of its roles."""
        way = self.way(role)
        return way is not None and all(os.access(path, os.R_OK) for path in way.files)
