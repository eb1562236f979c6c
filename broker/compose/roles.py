"""Connections to Vault: one for each role, each with a login of its own."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from broker.compose.ways import TOKENS, Ways
from broker.config import Config
from broker.copies import replace
from broker.errors import InputError, VaultUnavailableError
from broker.model.duration import parse_duration
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.accounts import VaultAccounts
from broker.vault.connection import Connection, Observer, unobserved
from broker.vault.evidence import VaultEvidence
from broker.vault.logins import token_source
from broker.vault.secrets import VaultKeys, VaultNamedSecrets
from broker.vault.settings import VaultSettings
from broker.vault.tokens import TokenSource
from broker.vault.transport import Seen

_SKIP_VERIFY: Final = ("BAO_SKIP_VERIFY", "VAULT_SKIP_VERIFY")
_THEIRS: Final = 4.0  # seconds for a login of a caller: Vault may wait for the keys of its issuer
_ON: Final = ("1", "t", "true")  # true for Go's strconv.ParseBool, hence for Vault


class Roles(Ways):
    """Where Vault is, and a connection for each role. Close it, so that no token is left."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        *,
        observer: Observer = unobserved,
        wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(config, environment)
        self._wait = wait
        self.observer = observer
        self._connections: dict[Role, Connection] = {}

    def close(self) -> None:
        """Give back every token, and close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if "_anonymous" in self.__dict__:
            self._anonymous.close()

    @cached_property
    def settings(self) -> VaultSettings:
        """Where Vault is: as configured, else the embedded one if it was set up here."""
        if self._embedded_by_default:
            return self._settings(f"unix://{self.home.socket}", "embedded", token=None)  # $VAULT_TOKEN is another's
        address = self.config.values["vault.address"]
        if any(self._environment.get(name, "").lower() in _ON for name in _SKIP_VERIFY):
            raise InputError(
                "VAULT_SKIP_VERIFY is set: the broker does not talk to a Vault that it cannot verify",
                hint="unset it, and point VAULT_CACERT at the CA of Vault's certificate",
            )
        if not address.text:
            if self.config["service.address"]:
                message = "this command goes to Vault directly, and no address of a Vault is known"
                raise InputError(message, hint="run it on a host of the broker's roles, or set VAULT_ADDR")
            raise InputError("no address of a Vault is known", hint="set VAULT_ADDR, or run: broker vault start")
        token = next((self._environment[name] for name in TOKENS if self._environment.get(name)), "")
        return self._settings(address.text, address.source, token=Secret(token) if token else None)

    def _settings(self, address: str, source: str, *, token: Secret[str] | None) -> VaultSettings:
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
            allow_http=self.config["vault.allow_http"] == "true",
        )

    def connection(self, role: Role) -> Connection:
        """Return the connection that acts as `role`. All share `Seen`, so none reads an older state than another."""
        if role not in self._connections:
            settings, seen, way = self.settings, self._seen, self.way(role)
            holder = f"role {role.value}" + (f" ({way.source})" if way and way.borrowed else "")
            login = self._login(role, Connection(settings, seen=seen, holder=holder))
            self._connections[role] = Connection(settings, login, observer=self.observer, seen=seen, holder=holder)
        return self._connections[role]

    def require_true_clock(self) -> None:
        """Raise `RefusedError` if this machine's clock is minutes from Vault's; ask Vault if it never answered."""
        vault = Connection(self.settings, seen=self._seen)
        try:
            vault.require_true_clock()
        finally:
            vault.close()

    @cached_property
    def _seen(self) -> Seen:
        """What all connections have seen; raise `VaultUnavailableError` if the embedded vault does not run."""
        if self.is_embedded and not self.home.socket.exists():
            raise VaultUnavailableError("the embedded vault does not run", hint="broker vault start")
        return Seen(wait=self._wait)

    def _login(self, role: Role, nobody: Connection) -> TokenSource:
        way = self.way(role)
        if way is None:
            raise InputError(
                f"the {role.value} role has no way to log in to Vault",
                hint=f'[roles.{role.value}] method = "approle" in broker.toml, or set VAULT_TOKEN',
            )
        try:
            return token_source(way.method, nobody, way.options)
        except InputError as error:
            raise InputError(f"the {role.value} role: {error.message}", hint=error.hint) from None

    def anonymous(self) -> Connection:
        """Return a connection without a login, for callers who show their own. It is patient for seconds only."""
        return self._anonymous

    @cached_property
    def _anonymous(self) -> Connection:
        settings = replace(self.settings, patience=min(self.settings.patience, _THEIRS))
        return Connection(settings, seen=self._seen)

    def accounts(self, role: Role) -> VaultAccounts:
        """Return the account documents as `role` sees them."""
        return VaultAccounts(self.connection(role))

    def evidence(self, role: Role) -> VaultEvidence:
        """Return the evidence as `role` sees it."""
        return VaultEvidence(self.connection(role))

    def keys(self, role: Role) -> VaultKeys:
        """Return the private keys, as far as `role` may touch them."""
        return VaultKeys(self.connection(role))

    def secrets(self, role: Role) -> VaultNamedSecrets:
        """Return the named secrets, as far as `role` may touch them."""
        return VaultNamedSecrets(self.connection(role))

        return VaultNamedSecrets(self.connection(role))
