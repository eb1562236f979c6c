"""Connections to Vault: one for each role, each with a login of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.errors import InputError, VaultUnavailableError
from broker.model.duration import parse_duration
from broker.vault.policies import Role
from broker.vault.writes import Observer, unobserved

if TYPE_CHECKING:
    from broker.config import Config
    from broker.embedded.home import Home
    from broker.model.secret import Secret
    from broker.rotation.ports import Accounts
    from broker.vault.connection import Connection, Seen
    from broker.vault.custody import VaultKeys, VaultPasswords
    from broker.vault.enrolment import AppRole
    from broker.vault.evidence import VaultEvidence
    from broker.vault.logins.source import TokenSource
    from broker.vault.settings import VaultSettings

__all__ = ["Roles"]


class Roles:
    """Where Vault is, and a connection for each role. Close it, so that no token is left."""

    def __init__(self, config: Config, environment: Mapping[str, str], *, observer: Observer = unobserved) -> None:
        self.config = config
        self._environment = environment
        self.observer = observer
        self._connections: dict[Role, Connection] = {}
        self._seen: Seen | None = None

    def close(self) -> None:
        """Give back every token, and close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    @cached_property
    def settings(self) -> VaultSettings:
        """Where Vault is: as configured, else the embedded one where it runs."""
        from broker.vault.settings import from_environment

        listed = {
            f"VAULT_{variable}": self.config[f"vault.{name}"]
            for name, variable in _VAULT_VARIABLES.items()
            if self.config.values[f"vault.{name}"].source != "default"
        }
        given = {k: v for k, v in self._environment.items() if k.endswith(("_SKIP_VERIFY", "_TOKEN"))}
        listed["VAULT_ADDR"] = self.config["vault.address"]
        if not listed["VAULT_ADDR"] and self.home.initialized.exists():
            given, listed["VAULT_ADDR"] = {}, f"unix://{self.home.socket}"  # a token around is another vault's
        found = from_environment({**given, **listed}, mount=self.config["vault.mount"])
        return replace(found, patience=parse_duration(self.config["vault.patience"]).total_seconds())

    @cached_property
    def home(self) -> Home:
        """The directory of the embedded vault, there or not."""
        from broker.embedded.home import Home

        return Home(Path(self.config["embedded.directory"]))

    def connection(self, role: Role) -> Connection:
        """Return the connection that speaks as `role`. What one has seen, all have: none reads what is older."""
        from broker.vault.connection import Connection, Seen

        if role not in self._connections:
            if self.settings.socket == str(self.home.socket) and not self.home.socket.exists():
                raise VaultUnavailableError("the embedded vault does not run", hint="broker vault start")
            self._seen = self._seen or Seen()
            login = self._login(role, self._seen)
            self._connections[role] = Connection(self.settings, login, observer=self.observer, seen=self._seen)
        return self._connections[role]

    def _login(self, role: Role, seen: Seen) -> TokenSource:
        from broker.vault.connection import Connection
        from broker.vault.logins import token_source

        options = dict(self.config.logins.get(role.value) or self.config.logins.get("default") or {})
        if self.settings.token:
            options = {"method": "token"}
        elif not options and self.settings.socket == str(self.home.socket):
            folder = self.home.roles / role.value
            options = {"method": "approle"} | {f"{n}_file": str(folder / n) for n in ("role_id", "secret_id")}
        if not options:
            raise InputError(
                f"the {role.value} role has no way to log in to Vault",
                hint=f'set VAULT_TOKEN, or [roles.{role.value}] method = "approle" in broker.toml',
            )
        return token_source(options.pop("method", "approle"), Connection(self.settings, seen=seen), options)

    def log_in(self, login: AppRole) -> tuple[Secret[str], int]:
        """Return a new token of a consumer's login and its seconds; nobody renews or revokes it."""
        from broker.vault.connection import Connection
        from broker.vault.enrolment import consumer_token

        return consumer_token(Connection(self.settings), login)

    def accounts(self, role: Role) -> Accounts:
        """Return the account documents as `role` sees them."""
        from broker.vault.accounts import VaultAccounts

        return VaultAccounts(self.connection(role))

    def evidence(self, role: Role) -> VaultEvidence:
        """Return the evidence as `role` sees it."""
        from broker.vault.evidence import VaultEvidence

        return VaultEvidence(self.connection(role))

    def keys(self, role: Role) -> VaultKeys:
        """Return the private keys, as far as `role` may touch them."""
        from broker.vault.custody import VaultKeys

        return VaultKeys(self.connection(role))

    def passwords(self, role: Role) -> VaultPasswords:
        """Return the passwords, as far as `role` may touch them."""
        from broker.vault.custody import VaultPasswords

        return VaultPasswords(self.connection(role))


_VAULT_VARIABLES: Final = {
    "namespace": "NAMESPACE",
    "ca_file": "CACERT",
    "ca_directory": "CAPATH",
    "client_certificate": "CLIENT_CERT",
    "client_key": "CLIENT_KEY",
    "server_name": "TLS_SERVER_NAME",
}
