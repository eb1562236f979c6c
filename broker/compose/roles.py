"""Connections to Vault: one for each role, each with a login of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.errors import InputError, VaultUnavailableError
from broker.model.duration import parse_duration
from broker.model.secret import Secret
from broker.vault.observer import Observer, unobserved
from broker.vault.policies import Role

if TYPE_CHECKING:
    from broker.config import Config
    from broker.embedded.home import Home
    from broker.vault.accounts import VaultAccounts
    from broker.vault.connection import Connection
    from broker.vault.enrolment import AppRole
    from broker.vault.evidence import VaultEvidence
    from broker.vault.logins import TokenSource
    from broker.vault.secrets import VaultKeys, VaultNamedSecrets
    from broker.vault.settings import VaultSettings
    from broker.vault.transport import Seen

__all__ = ["Roles", "Way"]

_TOKENS: Final = ("BAO_TOKEN", "VAULT_TOKEN")  # the first that is set wins
_SKIP_VERIFY: Final = ("BAO_SKIP_VERIFY", "VAULT_SKIP_VERIFY")
_ON: Final = ("1", "t", "true")  # true for Go's strconv.ParseBool, hence for Vault


@dataclass(frozen=True, slots=True)
class Way:
    """How a role logs in, and what says so: a file, $VAULT_TOKEN, or the embedded vault."""

    method: str
    options: Mapping[str, str]
    source: str

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the role logs in with."""
        return tuple(path for key, path in self.options.items() if key.endswith("file"))

    @property
    def borrowed(self) -> bool:
        """Whether the role speaks with a token that stands in the environment, whoever's that is."""
        return self.source.startswith("$")


class Roles:
    """Where Vault is, and a connection for each role. Close it, so that no token is left."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        *,
        observer: Observer = unobserved,
        wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config = config
        self._environment = environment
        self._wait = wait
        self.observer = observer
        self._connections: dict[Role, Connection] = {}

    def close(self) -> None:
        """Give back every token, and close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    @cached_property
    def settings(self) -> VaultSettings:
        """Where Vault is: as configured, else the embedded one if it was set up here; raise `InputError`."""
        if self._embedded_by_default:
            return self._settings(f"unix://{self.home.socket}", "embedded", token=None)  # $VAULT_TOKEN is another's
        address = self.config.values["vault.address"]
        if any(self._environment.get(name, "").lower() in _ON for name in _SKIP_VERIFY):
            raise InputError(
                "VAULT_SKIP_VERIFY is set: the broker does not talk to a Vault that it cannot verify",
                hint="unset it, and point VAULT_CACERT at the CA of Vault's certificate",
            )
        if not address.text:
            raise InputError("no address of a Vault is known", hint="set VAULT_ADDR, or run: broker vault start")
        token = next((self._environment[name] for name in _TOKENS if self._environment.get(name)), "")
        return self._settings(address.text, address.source, token=Secret(token) if token else None)

    def _settings(self, address: str, source: str, *, token: Secret[str] | None) -> VaultSettings:
        from broker.vault.settings import VaultSettings

        def path(name: str) -> Path | None:
            return Path(self.config[name]) if self.config[name] else None

        return VaultSettings(
            address,
            mount=self.config["vault.mount"],
            namespace=self.config["vault.namespace"].strip("/"),
            ca_file=path("vault.ca_file"),
            ca_directory=path("vault.ca_directory"),
            client_certificate=path("vault.client_certificate"),
            client_key=path("vault.client_key"),
            server_name=self.config["vault.server_name"],
            patience=parse_duration(self.config["vault.patience"]).total_seconds(),
            token=token,
            source=source,
        )

    @cached_property
    def home(self) -> Home:
        """The directory of the embedded vault, there or not; raise `InputError` where nobody can look into it."""
        from broker.embedded.home import Home

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

    def connection(self, role: Role) -> Connection:
        """Return the connection that speaks as `role`. What one has seen, all have: none reads what is older."""
        from broker.vault.connection import Connection

        if role not in self._connections:
            seen = self._seen
            login = self._login(role, seen)
            self._connections[role] = Connection(self.settings, login, observer=self.observer, seen=seen)
        return self._connections[role]

    def require_true_clock(self) -> None:
        """Raise `RefusedError` if this machine's clock is minutes from Vault's, which is asked if it was not yet."""
        from broker.vault.connection import Connection

        vault = Connection(replace(self.settings, namespace=""), seen=self._seen)
        try:
            if not vault.answered:
                vault.ask("GET", "sys/seal-status")  # every node answers it, without a token
            vault.require_true_clock()
        finally:
            vault.close()

    @cached_property
    def _seen(self) -> Seen:
        """What all connections have seen; raise `VaultUnavailableError` if the embedded vault does not run."""
        from broker.vault.transport import Seen

        if self.is_embedded and not self.home.socket.exists():
            raise VaultUnavailableError("the embedded vault does not run", hint="broker vault start")
        return Seen(wait=self._wait)

    def way(self, role: Role) -> Way | None:
        """Return how `role` logs in here, None where nothing says it. Nothing is asked or read.

        What the configuration says of a role wins over VAULT_TOKEN, which serves those it says nothing of (ADR 17).
        """
        named = self.config.logins.get(role.value) or self.config.logins.get("default")
        token = next((f"${name}" for name in _TOKENS if self._environment.get(name)), "")
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
        """Say whether the files that `role` logs in with are there to be read: a host has those of its roles."""
        way = self.way(role)
        return way is not None and all(os.access(path, os.R_OK) for path in way.files)

    def _login(self, role: Role, seen: Seen) -> TokenSource:
        from broker.vault.connection import Connection
        from broker.vault.logins import token_source

        way = self.way(role)
        if way is None:
            raise InputError(
                f"the {role.value} role has no way to log in to Vault",
                hint=f'[roles.{role.value}] method = "approle" in broker.toml, or set VAULT_TOKEN',
            )
        try:
            return token_source(way.method, Connection(self.settings, seen=seen), way.options)
        except InputError as error:
            raise InputError(f"the {role.value} role: {error.message}", hint=error.hint) from None

    def log_in(self, login: AppRole) -> tuple[Secret[str], int]:
        """Return a new token of a consumer's login and its seconds; nobody renews or revokes it."""
        from broker.vault.connection import Connection
        from broker.vault.enrolment import consumer_token

        return consumer_token(Connection(self.settings), login)

    def accounts(self, role: Role) -> VaultAccounts:
        """Return the account documents as `role` sees them."""
        from broker.vault.accounts import VaultAccounts

        return VaultAccounts(self.connection(role))

    def evidence(self, role: Role) -> VaultEvidence:
        """Return the evidence as `role` sees it."""
        from broker.vault.evidence import VaultEvidence

        return VaultEvidence(self.connection(role))

    def keys(self, role: Role) -> VaultKeys:
        """Return the private keys, as far as `role` may touch them."""
        from broker.vault.secrets import VaultKeys

        return VaultKeys(self.connection(role))

    def secrets(self, role: Role) -> VaultNamedSecrets:
        """Return the named secrets, as far as `role` may touch them."""
        from broker.vault.secrets import VaultNamedSecrets

        return VaultNamedSecrets(self.connection(role))
