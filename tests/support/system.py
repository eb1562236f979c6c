"""The whole system for a test: a vault, the partner stand-in, and the `broker` command in its own process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from partner_standin import Standin

from broker.compose.graph import Broker, Wiring
from broker.config import resolve
from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.role import Role
from broker.vault.layout import right
from tests.support.console import inside
from tests.support.ended import Ended
from tests.support.forked import shared
from tests.support.vault import TestVault, issue_login

__all__ = ["LOGIN", "PASSWORD", "SUBJECT", "Ended", "System", "made_system", "partner_server", "system"]

LOGIN: Final = "MZP0000001"
PASSWORD: Final = "pl4nted:Pa§s/word+1"
SUBJECT: Final = ("C=FR", "ST=Ile-de-France", "L=Paris", "O=Société Exemple", "emailAddress=api@exemple.example")
_numbers: Final = itertools.count(1)


@dataclass
class System:
    """A vault and a partner in which nothing has happened yet. `home` is where commands run."""

    vault: TestVault
    partner: Standin
    home: Path
    environment: dict[str, str]
    changes: Mapping[str, str] = field(default_factory=dict)  # further variables for every command
    here: bool = False  # whether commands run in this process, whose lines coverage counts

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `broker ARGUMENTS`."""
        return [sys.executable, "-m", "broker", *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `broker ARGUMENTS`, its output piped unless said otherwise."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**self.environment, **self.changes}
        return subprocess.Popen(self.command(*arguments), cwd=self.home, env=environment, **(pipes | options))

    def run(self, *arguments: str, input: str | bytes = b"") -> Ended:  # noqa: A002  # as subprocess
        """Run `broker ARGUMENTS` to its end, in a forked process: `start` is for tests of how a command starts."""
        data = input.encode() if isinstance(input, str) else input
        environment = {**self.environment, **self.changes}
        if self.here:
            return inside(arguments, home=self.home, environment=environment, input=data)
        return shared().run(*arguments, cwd=self.home, environment=environment, data=data).ended

    def ok(self, *arguments: str, input: str | bytes = b"") -> Ended:  # noqa: A002  # as subprocess
        """Run `broker ARGUMENTS`, which must succeed."""
        ended = self.run(*arguments, input=input)
        assert ended.code == 0, f"broker {' '.join(arguments)}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    @contextmanager
    def broker(
        self, wiring: Wiring | None = None, *, settings: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[Broker]:
        """Yield the object graph in this process: quick ways to a state that a test starts from."""
        config = resolve(flags=settings, environment=self.environment, file=None, defaults={"actor": "test"})
        made = Broker(config, self.environment, wiring=wiring)
        try:
            yield made
        finally:
            made.close()

    def account(self, name: str) -> Account:
        """Return the account as it is stored."""
        with self.broker() as broker:
            return broker.account(AccountName(name))

    # states to start from: each includes those before it

    def added(self, name: str = "acme") -> str:
        """An account with a password and the application `reporting`."""
        arguments = [part for pair in SUBJECT for part in ("--subject", pair)]
        self.ok(
            "account", "add", name, "--environment", "stand-in", "--base-url", self.partner.api_url,
            "--login", LOGIN, "--contact", "desk@partner.example", *arguments,
        )  # fmt: skip
        self.ok("password", "set", name, "--password-file", "-", input=PASSWORD)
        self.ok("app", "add", f"{name}/reporting")
        return name

    def requested(self, name: str = "acme") -> str:
        """And an open signing request."""
        self.added(name)
        self.ok("csr", "new", name)
        return name

    def reply(self, name: str = "acme", **options: str) -> Path:
        """Let the desk answer the open request; return the file it sent."""
        with self.broker() as broker:
            request = broker.account(AccountName(name)).open_request
        assert request is not None
        file = self.home / f"reply-{next(_numbers)}.zip"
        file.write_bytes(self.partner.sign(request.csr, **options).zip())
        return file

    def accepting(self) -> Sequence[str]:
        """Return the options that accept the partner's CAs."""
        described = self.partner.described()
        fingerprints = (str(described["issuing_ca_sha256"]), str(described["server_ca_sha256"]))
        return [part for fingerprint in fingerprints for part in ("--accept-ca", fingerprint)]

    def candidate(self, name: str = "acme") -> str:
        """And an imported reply."""
        self.requested(name)
        file = self.reply(name)
        self.ok("cert", "import", name, str(file), *self.accepting(), "--client-id-for", "reporting")
        return name

    def promoted(self, name: str = "acme") -> str:
        """And a current generation."""
        self.candidate(name)
        self.ok("rotation", "promote", name)
        return name

    def renewed(self, name: str = "acme") -> str:
        """And a second candidate, from a second request."""
        self.promoted(name)
        self.ok("csr", "new", name)
        self.ok("cert", "import", name, str(self.reply(name)))
        return name

    def consumer(self, *rights: str, name: str = "reader") -> Path:
        """Enrol a consumer for `ACCOUNT/APPLICATION`…; return the file with its token."""
        pairs = [text.split("/") for text in rights]
        paths = [right("stellantis", "stand-in", account, application) for account, application in pairs]
        file = self.home / f"{name}.token"
        file.write_text(self.vault.consumer_token(name, *paths).reveal())
        return file


@pytest.fixture
def partner_server(tmp_path: Path) -> Iterator[Standin]:
    """A partner that knows `LOGIN` with `PASSWORD`."""
    with Standin(tmp_path / "partner", accounts={LOGIN: PASSWORD}) as standin:
        yield standin


@contextmanager
def made_system(vault: TestVault, partner: Standin) -> Iterator[System]:
    """Yield a system in which nothing has happened yet; its bundles go to memory."""
    with tempfile.TemporaryDirectory(prefix="broker-system-", dir="/dev/shm") as directory:
        home = Path(directory)
        lines = ["version = 1"]
        for role in Role:
            login = issue_login(vault.admin, role.value)
            for name, text in (("role_id", login.role_id), ("secret_id", login.secret_id.reveal())):
                file = home / "roles" / role.value / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
                file.chmod(0o600)
            lines += [
                f"[roles.{role.value}]",
                *(f'{n}_file = "roles/{role.value}/{n}"' for n in ("role_id", "secret_id")),
            ]
        (home / "broker.toml").write_text("\n".join(lines))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "LANG": "C.UTF-8",
            "BROKER_CONFIG": str(home / "broker.toml"),
            "BROKER_MOUNT": vault.settings.mount,
            "VAULT_ADDR": vault.settings.address,
            "PYTHONWARNINGS": "error",
        }
        yield System(vault, partner, home, environment)


@pytest.fixture
def system(vault: TestVault, partner_server: Standin) -> Iterator[System]:
    """A system in which nothing has happened yet; its bundles go to memory."""
    with made_system(vault, partner_server) as made:
        yield made
