"""Administer a Vault: run the embedded one, set up any, and enrol consumers. For people who hold an admin token."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from broker.compose.roles import Roles
from broker.compose.ways import signing_paths
from broker.copies import replace
from broker.embedded import server
from broker.embedded.config import DEFAULTS, Options
from broker.embedded.up import Embedded, administered, up
from broker.errors import BrokerError, DeniedError, InputError, Kind, UnknownNameError, VaultUnavailableError
from broker.model.account import Account
from broker.model.names import guess
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.approle import login_paths, provide_login, require_no_others_login, single_login
from broker.vault.connection import ADMIN_HINT, ADMINISTRATOR, Connection
from broker.vault.enrol_script import enrol_script
from broker.vault.enrolment import (
    Enrolled,
    Subject,
    change_rights,
    consumer,
    consumer_role,
    consumers,
    enrol_consumer,
    remove_consumer,
)
from broker.vault.errors import LackingError
from broker.vault.health import health, lacking
from broker.vault.jwt_mounts import jwt_mounts
from broker.vault.logins import token_source
from broker.vault.ownership import survey, unseen
from broker.vault.policies import ALL, admin_policy, consumer_policy
from broker.vault.setup import Item, Wish, apply, as_shell, changes, lacking_rights, plan, wanted

Write = Callable[[Path, bytes], None]  # a file that only its owner can read


class VaultStatus(Struct, frozen=True):
    """Whether a vault answers and serves the broker, None if unknown; `code`, `message` and `hint` say why not."""

    embedded: str | None
    pid: int | None
    answers: bool | None = None
    serves: bool | None = None
    address: str = ""
    code: Kind | None = None
    message: str = ""
    hint: str = ""


class SetUp(Struct, frozen=True):
    """A planned or finished set-up, and its effects on others. `logins` are the roles that got a new login.

    `lacks` is the error for rights that the plan needs and the administrator lacks.
    """

    plan: tuple[Item, ...]
    effects: tuple[str, ...]
    logins: tuple[Role, ...]
    lacks: BrokerError | None


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
        embedded = self._up(wish=self._wish(), options=Options(audit=audit))
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
        elif lacks := lacking(vault, role, signing_paths(self._roles.config)[role]):
            message = f"the {role.value} role lacks {'; '.join(lacks)}"
            raise DeniedError(message, hint="VAULT_TOKEN=… broker vault setup --dry-run")

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

    @property
    def has_logins(self) -> bool:
        """Whether the login of a role can be read on this host; a token in the environment is none."""
        ways = [way for role in Role if self._roles.may_try(role) and (way := self._roles.way(role))]
        return not all(way.borrowed for way in ways)

    def admin_policy(self, *, adopt: bool) -> str:
        """Return the policy with every right that an administrator needs."""
        issuers = self._roles.config.issuers.values()
        return admin_policy(
            self._roles.config["vault.mount"],
            shared=adopt,
            jwt_mounts=[issuer.mount for issuer in issuers if issuer.is_ours],
            issuers=[issuer.mount for issuer in issuers],
        )

    def script(self, accounts: Sequence[str], *, adopt: bool) -> str:
        """Return the set-up as a shell script, for an administrator to run."""
        ground = unseen(self._roles.config["vault.mount"], shared=adopt)
        return as_shell(ground, wanted(ground, self._wish(accounts, adopt=adopt)))

    def set_up(
        self, accounts: Sequence[str], *, adopt: bool, dry_run: bool, login_dir: Path | None, write: Write
    ) -> SetUp:
        """Set up mount, policies and logins, or only plan it. With `login_dir`, write each role's login there.

        The roles may reach the secrets of `accounts` only, of all accounts if it is empty.
        """
        wish = self._wish(accounts, adopt=adopt)
        logins: tuple[Role, ...] = ()
        with self._administrator("broker vault setup --print sh") as vault:
            try:
                planned = plan(vault, wish)
            except LackingError as error:
                raise lacking_rights(vault, wish) or error from None
            needed = [*(item.path for item in changes(planned)), *(login_paths(vault) if login_dir else ())]
            lacks = lacking_rights(vault, wish, () if dry_run else needed) if needed else None
            effects = tuple(survey(vault).effects()) if wish.adopt else ()
            if lacks and not dry_run:
                raise lacks
            if not dry_run:
                apply(vault, planned)
            if login_dir:
                logins = tuple(r for r in Role if provide_login(vault, r.value, login_dir / r.value, write))
        if not dry_run and self._roles.is_embedded:
            self._up(wish=wish)
        return SetUp(planned, effects, logins, lacks)

    def right(self, account: Account, application: str) -> str:
        """Return the path on which a consumer needs `update`; raise `UnknownNameError`."""
        account.application(application)
        return layout.right(account.profile, account.environment, account.name, application)

    def enrol(
        self, name: str, rights: Sequence[str], *, login_dir: Path | None, token: bool, write: Write
    ) -> tuple[tuple[str, ...], tuple[Secret[str], int] | None]:
        """Create consumer `name` with exactly `rights`.

        Return the rights that it lost; and a token with its lifetime in seconds, if wanted.
        """
        role = consumer_role(name)
        with self._administrator(_rendering(name, rights, "--script")) as vault:
            if login_dir:
                require_no_others_login(vault, role, login_dir)
            lost = enrol_consumer(vault, name, rights)
            if login_dir:
                provide_login(vault, role, login_dir, write)
            return lost, single_login(vault, role) if token else None

    def subject(self, issuer: str, name: str) -> Subject:
        """Return the subject `name` of an issuer of the configuration; raise `UnknownNameError`."""
        issuers = self._roles.config.issuers
        if issuer not in issuers:
            hint = f"{guess(issuer, issuers)}[issuers.NAME] in broker.toml adds one"
            raise UnknownNameError(f"there is no issuer {issuer[:80]}", hint=hint)
        return Subject(issuers[issuer], name)

    def enrol_subject(self, name: str, rights: Sequence[str], subject: Subject) -> tuple[str, ...]:
        """Create consumer `name` with exactly `rights`, who shows JWTs of `subject`; return the rights that it lost."""
        issuer = next(key for key, found in self._roles.config.issuers.items() if found == subject.issuer)
        script = _rendering(name, rights, "--issuer", issuer, "--subject", subject.name, "--script")
        with self._administrator(script) as vault:
            return enrol_consumer(vault, name, rights, subject)

    def change_rights(self, name: str, rights: Sequence[str]) -> tuple[str, ...]:
        """Give consumer `name` exactly `rights`, for all its logins; return those that it lost.

        Raise `UnknownNameError` if there is none.
        """
        with self._administrator(_rendering(name, rights)) as vault:
            return change_rights(vault, name, rights)

    def enrolled(self) -> tuple[Enrolled, ...]:
        """Return every consumer that was enrolled, by name."""
        with self._administrator() as vault:
            return consumers(vault)

    def remove(self, name: str) -> bool:
        """Remove consumer `name`, its rights first; return False if there was none."""
        with self._administrator() as vault:
            return remove_consumer(vault, name, self._roles.config.issuers)

    def consumer_policy(self, rights: Sequence[str]) -> str:
        """Return the HCL that gives exactly `rights`."""
        return consumer_policy(rights)

    def enrol_script(self, name: str, rights: Sequence[str], subject: Subject | None) -> str:
        """Return the commands that enrol consumer `name`, as a shell script for an administrator to run."""
        return enrol_script(self._roles.config["vault.mount"], name, rights, subject)

    def require_right(self, name: str, right: str) -> None:
        """Raise `BrokerError` with the reason why consumer `name` may not do `right`."""
        with self._administrator() as vault:
            consumer(vault, name).require(right)

    def _wish(self, accounts: Sequence[str] = (), *, adopt: bool = False) -> Wish:
        config = self._roles.config
        issuers = jwt_mounts(config.issuers)
        return Wish(tuple(accounts) or ALL, adopt=adopt, issuers=issuers, pki=signing_paths(config))

    def _up(self, *, wish: Wish, options: Options = DEFAULTS) -> Embedded:
        mount = self._roles.config["vault.mount"]
        return up(self.directory, options, mount=mount, wish=wish, observer=self._roles.observer)

    @contextmanager
    def _administrator(self, script: str = "") -> Iterator[Connection]:
        """Yield a connection that may write policies: the embedded vault's own, or one with VAULT_TOKEN.

        `script` is the command that prints the same work as a script.
        """
        roles = self._roles
        if roles.is_embedded:
            running = server.status(self.directory)
            if running is None:
                raise VaultUnavailableError("the embedded vault does not run", hint="broker vault start")
            with administered(Embedded(running, roles.settings), observer=roles.observer) as vault:
                yield vault
            return
        if roles.settings.token is None:
            other = f"; for somebody else to run: {script}" if script else ""
            hint = f"set VAULT_TOKEN; the policy that it needs: {ADMIN_HINT}{other}"
            raise InputError("this needs a token of a Vault administrator", hint=hint)
        login = token_source("token", Connection(roles.settings), {})
        vault = Connection(roles.settings, login, observer=roles.observer, holder=ADMINISTRATOR)
        try:
            yield vault
        finally:
            vault.close()


def _rendering(name: str, rights: Sequence[str], *options: str) -> str:
    """Return the command that prints the policy of a consumer, or with `options` a script."""
    granted = [word for right in rights for word in ("--right", "/".join(right.split("/")[3:5]))]
    return shlex.join(["broker", "policy", "render", name, *granted, *options])
