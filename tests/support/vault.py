"""A real vault for tests: one embedded server for each worker, and a separate mount, fully set up, for each test."""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from broker.copies import replace
from broker.embedded.config import Options
from broker.embedded.server import find_binary, stop
from broker.embedded.up import Embedded, administered, up
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import ADMINISTRATOR, Connection, Observer, unobserved
from broker.vault.enrolment import consumer_role, enrol_consumer
from broker.vault.errors import PassingError
from broker.vault.layout import right
from broker.vault.logins import FixedToken
from broker.vault.policies import admin_policy
from broker.vault.settings import VaultSettings
from broker.vault.setup import Item, Wish, apply, plan
from tests.support.matrix import CONSUMER
from tests.support.ports import free_ports

__all__ = [
    "AppRole",
    "TestVault",
    "a_consumer",
    "admin_token",
    "administrator",
    "emptied_vault",
    "enrol",
    "issue_login",
    "login",
    "mounted",
    "plan_of",
    "set_up",
    "throwaway",
    "token_of",
    "vault",
    "vault_server",
    "with_root_token",
]

_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class AppRole:
    """A login at `auth/<mount>/login`."""

    mount: str
    role_id: str
    secret_id: Secret[str]


@dataclass
class TestVault:
    """A separate mount on the worker's server. `admin` may do everything."""

    __test__ = False

    settings: VaultSettings
    admin: Connection
    embedded: Embedded
    _open: list[Connection] = field(default_factory=list)

    def connection(self, role: Role, *, observer: Observer = unobserved) -> Connection:
        """Return a connection of `role`, closed at the end of the test."""
        connection = Connection(self.settings, FixedToken(self.token(role.value)), observer=observer)
        self._open.append(connection)
        return connection

    def token(self, role: str) -> Secret[str]:
        """Return a token of `role`, a `Role`'s value, or of a consumer that may have bundles of mzp-1/app."""
        if role != CONSUMER:
            return login(self.admin, issue_login(self.admin, role))
        return self.consumer_token("any", right("stellantis", "standin", "mzp-1", "app"))

    def consumer_token(self, name: str, *rights: str) -> Secret[str]:
        """Enrol the consumer `name` with `rights` and log in as it."""
        return login(self.admin, a_consumer(self.admin, name, rights))

    def close(self) -> None:
        """Close the connections of the test."""
        while self._open:
            self._open.pop().close()

    def empty(self, folder: str = "") -> None:
        """Remove every document below `folder`."""
        for name in self.admin.list(folder):
            if name.endswith("/"):
                self.empty(f"{folder}{name}")
            else:
                self.admin.call("DELETE", f"{self.settings.mount}/metadata/{folder}{name}")


def a_consumer(vault: Connection, name: str, rights: Sequence[str]) -> AppRole:
    """Enrol the consumer `name` with `rights`, as an administrator without root; return a login of its."""
    enrol(vault, name, rights)
    return issue_login(vault, consumer_role(name))


def enrol(root: Connection, name: str, rights: Sequence[str]) -> None:
    """Enrol a consumer, as such an administrator."""
    with administrator(root) as person:
        enrol_consumer(person, name, rights)


def admin_token(root: Connection, *mounts: str, jwt_mounts: Sequence[str] = ()) -> Secret[str]:
    """Return a token with exactly the rights of the policy that `--print admin-policy` prints, for each of `mounts`.

    `jwt_mounts` are those of the issuers of the configuration.
    """
    policies = []
    for mount in mounts or (root.settings.mount,):
        policies.append(f"administrators/{mount}{'/jwt' if jwt_mounts else ''}".lower())
        text = admin_policy(mount, shared=True, jwt_mounts=jwt_mounts, issuers=jwt_mounts)
        root.call("POST", f"sys/policies/acl/{policies[-1]}", {"policy": text})
    return token_of(root, policies=policies, no_default_policy=True, no_parent=True, ttl="1h")


@contextmanager
def administrator(root: Connection, wish: Wish = Wish()) -> Iterator[Connection]:  # noqa: B008  # it is frozen
    """Yield a connection of an administrator, for the mount and Vault of `root`, who has no other right."""
    token = admin_token(root, jwt_mounts=[issuer.path for issuer in wish.issuers])
    connection = Connection(root.settings, FixedToken(token), holder=ADMINISTRATOR)
    try:
        yield connection
    finally:
        connection.close()


def set_up(root: Connection, wish: Wish = Wish()) -> None:  # noqa: B008  # it is frozen
    """Set the mount of `root` up, as an administrator without root."""
    with administrator(root, wish) as person:
        apply(person, plan(person, wish))


def plan_of(root: Connection, wish: Wish = Wish()) -> tuple[Item, ...]:  # noqa: B008  # it is frozen
    """Return the plan of such an administrator."""
    with administrator(root, wish) as person:
        return plan(person, wish)


def issue_login(vault: Connection, role: str) -> AppRole:
    """Return the role-id and a new secret-id of `role`, a `Role`'s value or a consumer's; older ones stay valid."""
    base = f"auth/{vault.settings.mount}/role/{role}"
    role_id = vault.ask("GET", f"{base}/role-id")["data"]["role_id"]
    secret_id = vault.call("POST", f"{base}/secret-id")["data"]["secret_id"]
    return AppRole(vault.settings.mount, role_id, Secret(secret_id))


def login(vault: Connection, role: AppRole) -> Secret[str]:
    """Return a fresh token of `role`."""
    body = {"role_id": role.role_id, "secret_id": role.secret_id.reveal()}
    return Secret(vault.ask("POST", f"auth/{role.mount}/login", body)["auth"]["client_token"])


def token_of(vault: Connection, **body: object) -> Secret[str]:
    """Return a token made by `auth/token/create` with `body`."""
    return Secret(vault.call("POST", "auth/token/create", body)["auth"]["client_token"])


@contextmanager
def throwaway(options: Options | None = None) -> Iterator[Embedded]:
    """Yield an embedded vault in a new directory; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="broker-test-") as directory:  # short: a socket's path has 104 bytes
        embedded = up(Path(directory) / "vault", replace(options or Options(), tied=True))
        try:
            yield embedded
        finally:
            stop(embedded.running.home.root)
            os.close(embedded.running.lifeline)


@pytest.fixture(scope="session")
def vault_server() -> Iterator[tuple[Embedded, Connection]]:
    """The worker's server, and a connection that may do everything on it."""
    with throwaway() as embedded, ExitStack() as stack:
        yield embedded, stack.enter_context(administered(embedded))


@contextmanager
def mounted(server: tuple[Embedded, Connection]) -> Iterator[TestVault]:
    """Yield a new mount on `server`, fully set up; it is gone afterwards."""
    embedded, _ = server
    settings = replace(embedded.settings, mount=f"broker-{next(_numbers)}", patience=3.0)
    with administered(Embedded(embedded.running, settings)) as admin:
        set_up(admin)
        made = TestVault(settings, admin, embedded)
        try:
            yield made
        finally:
            made.close()
            for kind in ("mounts", "auth"):
                with suppress(PassingError):  # two years of documents and logins take longer than a request may
                    admin.call("DELETE", f"sys/{kind}/{settings.mount}")


@pytest.fixture
def vault(vault_server: tuple[Embedded, Connection]) -> Iterator[TestVault]:
    """A vault in which nothing has happened yet."""
    with mounted(vault_server) as made:
        yield made


@pytest.fixture(scope="session")
def _mount_for_documents(vault_server: tuple[Embedded, Connection]) -> Iterator[TestVault]:
    with mounted(vault_server) as made:
        yield made


@pytest.fixture
def emptied_vault(_mount_for_documents: TestVault) -> Iterator[TestVault]:
    """A vault without documents, for tests that change only documents: it is set up once, which takes 60 requests."""
    yield _mount_for_documents
    _mount_for_documents.close()
    _mount_for_documents.empty()


@contextmanager
def with_root_token() -> Iterator[VaultSettings]:
    """Yield a vault as others have it: nothing set up, a TCP listener, and a root token in the settings."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    token = f"root-{secrets.token_hex(12)}"
    options = ["-dev-no-store-token", f"-dev-root-token-id={token}", f"-dev-listen-address={address}"]
    with subprocess.Popen(
        [find_binary(), "server", "-dev", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}
    ) as server:
        settings = VaultSettings(f"http://{address}", token=Secret(token))
        try:
            waiting = Connection(settings)
            waiting.ask("GET", "sys/health")
            waiting.close()
            yield settings
        finally:
            server.terminate()
