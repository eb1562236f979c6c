"""Administer a Vault: run the embedded one, set up any, and enrol consumers. For people who hold an admin token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from broker.compose.roles import Roles
from broker.embedded import server
from broker.embedded.config import Options
from broker.embedded.up import Embedded, administered, up
from broker.errors import BrokerError, DeniedError, InputError, Kind, VaultUnavailableError
from broker.model.account import Account
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.enrolment import (
    consumer_role,
    consumer_token,
    enrol_consumer,
    provide_login,
    require_no_others_login,
)
from broker.vault.health import health, lacking
from broker.vault.logins import token_source
from broker.vault.ownership import survey, unseen
from broker.vault.policies import ALL
from broker.vault.setup import Item, Wish, apply, as_shell, plan, wanted

Write = Callable[[Path, bytes], None]  # a file that only its owner can read


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """Whether a vault answers and serves the broker, None if unknown; `code`, `message` and `hint` say why not."""

    embedded: str | None
    pid: int | None
    answers: bool | None = None
    serves: bool | None = None
    address: str = ""
    code: Kind | None = None
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class SetUp:
    """A planned or finished set-up, and its effects on others. `logins` are the roles that got a new login."""

    plan: tuple[Item, ...]
    effects: tuple[str, ...]
    logins: tuple[Role, ...]


class Vaults:
    """The use-cases of an administrator."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    @property
    def directory(self) -> Path:
        """The directory of the embedded vault."""
        return self._roles.home.root

    def start(self, *, audit: bool) -> tuple[str, int]:
        """Start and set up the embedded vault; return its address and process id."""
        embedded = self._up(options=Options(audit=audit))
        return embedded.settings.address, embedded.running.pid

    def stop(self) -> bool:
        """Stop the embedded vault; return whether it ran."""
        return server.stop(self.directory)

    def status(self) -> VaultStatus:
        """Return whether the vault answers, and serves one of the roles of this host."""
        embedded = not self._roles.config["vault.address"]
        running = server.status(self.directory) if embedded else None
        found = VaultStatus(str(self.directory) if embedded else None, running.pid if running else None)
        try:
            found = replace(found, address=self._roles.settings.address)
            health(self._roles.settings)
            found = replace(found, answers=True)
            here = self._roles.here
            role = Role.AUDITOR if Role.AUDITOR in here or not here else here[0]
            vault = self._roles.connection(role)
            found = replace(found, serves=False)
            self._require_service(role, vault)
        except BrokerError as error:
            away = not found.answers and error.kind is Kind.VAULT_UNAVAILABLE
            answers = False if away else found.answers
            return replace(found, answers=answers, code=error.kind, message=error.message, hint=error.hint)
        return replace(found, serves=True)

    def _require_service(self, role: Role, vault: Connection) -> None:
        """Use Vault as `role`; raise the error that a command would meet."""
        if role is Role.AUDITOR:
            vault.list("accounts")
        elif lacks := lacking(vault, role):
            raise DeniedError(f"the {role.value} role lacks {', '.join(lacks)}", hint="broker vault setup --dry-run")

    def environment(self) -> Mapping[str, str]:
        """Return the variables that Vault's own tools need to reach the vault. No token."""
        settings = self._roles.settings
        values = {
            "ADDR": settings.address,
            "NAMESPACE": settings.namespace,
            "CACERT": settings.ca_file,
            "CAPATH": settings.ca_directory,
            "CLIENT_CERT": settings.client_certificate,
            "CLIENT_KEY": settings.client_key,
            "TLS_SERVER_NAME": settings.server_name,
        }
        return {name: str(value) for name, value in values.items() if value}

    def script(self, accounts: Sequence[str], *, adopt: bool) -> str:
        """Return the set-up as a shell script, for an administrator to run."""
        ground = unseen(self._roles.config["vault.mount"], shared=adopt)
        return as_shell(ground, wanted(ground, Wish(tuple(accounts) or ALL, adopt=adopt)))

    def set_up(
        self, accounts: Sequence[str], *, adopt: bool, dry_run: bool, login_dir: Path | None, write: Write
    ) -> SetUp:
        """Set up mount, policies and logins, or only plan it. With `login_dir`, write each role's login there.

        The roles may reach the secrets of `accounts` only, of all accounts if it is empty.
        """
        wish = Wish(tuple(accounts) or ALL, adopt=adopt)
        logins: tuple[Role, ...] = ()
        with self._administrator() as vault:
            planned = plan(vault, wish)
            effects = tuple(survey(vault).effects()) if wish.adopt else ()
            if not dry_run:
                apply(vault, planned)
            if login_dir:
                logins = tuple(r for r in Role if provide_login(vault, r.value, login_dir / r.value, write))
        if not dry_run and self._roles.is_embedded:
            self._up(wish=wish)
        return SetUp(planned, effects, logins)

    def right(self, account: Account, application: str) -> str:
        """Return the path on which a consumer needs `update`; raise `UnknownNameError`."""
        account.application(application)
        return layout.right(account.profile, account.environment, account.name, application)

    def enrol(
        self, name: str, rights: Sequence[str], *, login_dir: Path | None, token: bool, write: Write
    ) -> tuple[Secret[str], int] | None:
        """Create consumer `name` with exactly `rights`; return a token and its lifetime in seconds, if wanted."""
        role = consumer_role(name)
        with self._administrator() as vault:
            if login_dir:
                require_no_others_login(vault, role, login_dir)
            enrol_consumer(vault, name, rights)
            if login_dir:
                provide_login(vault, role, login_dir, write)
            return consumer_token(vault, role) if token else None

    def _up(self, *, wish: Wish = Wish(), options: Options = Options()) -> Embedded:  # noqa: B008  # both are frozen
        mount = self._roles.config["vault.mount"]
        return up(self.directory, options, mount=mount, wish=wish, observer=self._roles.observer)

    @contextmanager
    def _administrator(self) -> Iterator[Connection]:
        """Yield a connection that may write policies: the embedded vault's own, or one with VAULT_TOKEN."""
        roles = self._roles
        if roles.is_embedded:
            running = server.status(self.directory)
            if running is None:
                raise VaultUnavailableError("the embedded vault does not run", hint="broker vault start")
            with administered(Embedded(running, roles.settings), observer=roles.observer) as vault:
                yield vault
            return
        if roles.settings.token is None:
            raise InputError(
                "the set-up needs a token that may write mounts and policies",
                hint="set VAULT_TOKEN; or use --print sh, for an administrator to run",
            )
        login = token_source("token", Connection(roles.settings), {})
        vault = Connection(roles.settings, login, observer=roles.observer)
        try:
            yield vault
        finally:
            vault.close()
