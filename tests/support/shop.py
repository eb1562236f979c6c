"""Where commands are tried: put in a state, run inside this process, and looked at for what they left."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from broker.compose import Wiring
from broker.model.account import Account
from broker.standin import Standin
from tests.support.console import GOOD, inside
from tests.support.lab import ACCOUNT, Lab
from tests.support.partner import a_csr
from tests.support.world import LOGIN, PASSWORD, Ended

__all__ = ["Look", "Shop"]

KEPT: Final = ("broker.toml", "roles")


@dataclass(frozen=True, slots=True)
class Look:
    """All that a command might have changed: versions in Vault, tokens alive, files by digest."""

    documents: Mapping[str, str]
    tokens: frozenset[str]
    files: Mapping[str, str]


@dataclass
class Shop:
    """A lab's states, with good files lying about: good.csr, reply.zip, own.toml, reader.token."""

    lab: Lab
    state: str = ""
    before: Look | None = None
    _files: dict[str, bytes] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.lab.world.home

    @property
    def partner(self) -> Standin:
        return self.lab.world.partner

    @property
    def account(self) -> Account:
        """The account as it is stored."""
        found = self.lab.account()
        assert found
        return found

    def put(self, state: str) -> None:
        """Be in `state`, and remember how all looks; nothing to do where a test left it so."""
        if self.state != state:
            self._lay_out()
            self.lab.put(state)
            self.state, self.before = state, None
        self.before = self.before or self.look()

    def run(
        self,
        line: str,
        *,
        input: bytes = b"",  # noqa: A002  # as subprocess
        wiring: Wiring | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Ended:
        """Run `broker LINE`, with the changes `env` to the environment; "" removes a variable."""
        environment = {k: v for k, v in {**self.lab.world.environment, **env}.items() if v}
        return inside(shlex.split(line), home=self.home, environment=environment, input=input, wiring=wiring)

    def ok(
        self,
        line: str,
        *,
        input: bytes = b"",  # noqa: A002  # as subprocess
        wiring: Wiring | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Ended:
        """Run `broker LINE`, which must succeed."""
        ended = self.run(line, input=input, wiring=wiring, env=env)
        assert ended.code == 0, f"broker {line}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    def good(self, command: str, account: str = ACCOUNT, application: str = "reporting", number: str = "1") -> str:
        """Return a good command line of `command`, or the same with another name in it."""
        line = GOOD[command].line.format(
            account=shlex.quote(account), application=shlex.quote(application), number=shlex.quote(number)
        )
        return f"{command} {line}"

    def tidy(self) -> None:
        """Let the partner forget its faults, and a state that was changed be set up anew."""
        self.partner.faults.clear()
        self.partner.log.clear()
        self.partner.registry.set_password(LOGIN, PASSWORD)
        self.partner.registry.unlock(LOGIN)
        if self.before and self.look() != self.before:
            self.state, self.before = "", None

    def look(self) -> Look:
        vault = self.lab.world.vault.admin
        kept = (path for path in self._paths() if not path.startswith("signers/"))  # made once, by whoever is first
        documents = {path: str(sorted(vault.versions(path).items())) for path in kept}
        tokens = vault.ask("LIST", "auth/token/accessors")["data"]["keys"]
        files = {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.home.rglob("*"))
            if path.is_file()
        }
        return Look(documents, frozenset(tokens), files)

    def _lay_out(self) -> None:
        self._files = self._files or {
            "good.csr": a_csr(rsa.generate_private_key(65537, 2048)),
            "reply.zip": self.lab.replies[0].read_bytes(),
            "second.zip": self.lab.replies[1].read_bytes(),
            "own.toml": OWN.encode(),
            "reader.token": Path(self.lab.token()).read_bytes(),
        }
        self._clear_home()
        for name, content in self._files.items():
            (self.home / name).write_bytes(content)

    def _clear_home(self) -> None:
        for path in self.home.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _paths(self, folder: str = "") -> Iterator[str]:
        for name in self.lab.world.vault.admin.list(folder):
            if name.endswith("/"):
                yield from self._paths(f"{folder}{name}")
            else:
                yield f"{folder}{name}"


OWN: Final = """
schema = 1
name = "own-partner"
title = "A partner of our own"
[environments.production]
base_url = "https://api.own.example/v1"
"""
