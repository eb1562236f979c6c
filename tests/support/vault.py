"""A real vault for tests: one embedded server for each worker, and a separate mount, fully set up, for each test."""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from broker.embedded.config import Options
from broker.embedded.server import find_binary, stop
from broker.embedded.up import Embedded, administered, up
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection, Observer, unobserved
from broker.vault.enrolment import consumer_role, enrol_consumer
from broker.vault.layout import right
from broker.vault.logins import FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.support.matrix import CONSUMER
from tests.support.ports import free_ports

__all__ = [
    "AppRole",
    "TestVault",
    "a_consumer",
    "issue_login",
    "login",
    "mounted",
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
        for connection in self._open:
            connection.close()


def a_consumer(vault: Connection, name: str, rights: Sequence[str]) -> AppRole:
    """Enrol the consumer `name` with `rights`; return a login of its."""
    enrol_consumer(vault, name, rights)
    return issue_login(vault, consumer_role(name))


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
        apply(admin, plan(admin, Wish()))
        made = TestVault(settings, admin, embedded)
        try:
            yield made
        finally:
            made.close()
            admin.call("DELETE", f"sys/mounts/{settings.mount}")
            admin.call("DELETE", f"sys/auth/{settings.mount}")


@pytest.fixture
def vault(vault_server: tuple[Embedded, Connection]) -> Iterator[TestVault]:
    """A vault in which nothing has happened yet."""
    with mounted(vault_server) as made:
        yield made


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
