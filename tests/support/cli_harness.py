"""Harness for commands: set up a state, run inside this process, inspect the result."""

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
from partner_standin import Standin

from broker.compose.graph import Wiring
from broker.copies import replace
from broker.model.account import Account
from broker.model.clock import system_clock
from broker.pki.reply import read_reply
from broker.vault.connection import Phase
from tests.support.catalogue import GOOD, filled
from tests.support.console import inside
from tests.support.outside import zipped
from tests.support.partner import a_csr
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.system import LOGIN, PASSWORD, Ended

__all__ = ["CliHarness", "Look"]

KEPT: Final = ("broker.toml", "roles", "given")


@dataclass(frozen=True, slots=True)
class Beside:
    """What a command might have changed beside documents: tokens alive, files by digest."""

    tokens: frozenset[str]
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """All that a command might have changed; `documents` are the versions in Vault."""

    documents: Mapping[str, str]
    beside: Beside


@dataclass
class CliHarness:
    """A saved's states, with good files lying about: good.csr, reply.zip, own.toml, plain.toml, reader.token."""

    saved: SavedStates
    state: str = ""
    before: Beside | None = None
    writes: list[str] = field(default_factory=list)  # what the commands of this test wrote to Vault, and Vault took
    watched: bool = True  # whether all of them ran in this process, where writes are seen
    _good: dict[str, bytes] = field(default_factory=dict)
    _passwords: object = None  # the partner's hashes of PASSWORD: to make one takes longer than most commands

    @property
    def home(self) -> Path:
        return self.saved.system.home

    @property
    def partner(self) -> Standin:
        return self.saved.system.partner

    @property
    def account(self) -> Account:
        """The account as it is stored."""
        found = self.saved.account()
        assert found
        return found

    @property
    def cas(self) -> Mapping[str, str]:
        """The fingerprints of the CAs in reply.zip: the one that signs, and the server's."""
        server = str(self.partner.described()["server_ca_sha256"])
        found = {d.fingerprint for d in read_reply(self._good["reply.zip"]).authorities}
        (issuing,) = found - {server}
        return {"issuing": issuing, "server": server}

    def put(self, state: str) -> None:
        """Be in `state`, and remember how all looks; nothing to do where a test left it so."""
        if self.state != state or self.writes or not self.watched:
            self._lay_out()
            self.saved.put(state)
            self.state, self.writes, self.watched = state, [], True
            self.remember()
        elif self.before:  # tests without this harness may have left tokens in the same vault
            self.before = replace(self.before, tokens=self._tokens())

    def remember(self) -> None:
        """Take what is there now for what `assert_unchanged` expects."""
        self.before = self._beside()

    def run(
        self,
        line: str,
        *,
        input: bytes = b"",  # noqa: A002  # as subprocess
        wiring: Wiring | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Ended:
        """Run `broker LINE`, with the changes `env` to the environment; "" removes a variable."""
        environment = {k: v for k, v in {**self.saved.system.environment, **env}.items() if v}
        watching = Wiring(clock=wiring.clock if wiring else system_clock, observer=self._note)
        return inside(shlex.split(line), home=self.home, environment=environment, input=input, wiring=watching)

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

    def prepare(self, command: str) -> None:
        """Run the lines that come before a good line of `command`."""
        for line in GOOD[command].before:
            self.ok(self.good(command, line=line))

    def good(
        self,
        command: str,
        account: str = ACCOUNT,
        application: str = "reporting",
        number: str | None = None,
        line: str = "",
    ) -> str:
        """Return a good command line of `command`, or the same with another name in it; or `line`, filled in."""
        case = GOOD[command]
        values = {
            **self.saved.values(case.state),
            "account": account,
            "application": application,
            "number": case.number if number is None else number,
            "reply": "reply.zip",
            "set": "outside.zip",
            "profile": "own.toml",
            "csr": "good.csr",
            "token": "reader.token",
            "consumer": "newcomer",  # enrolment replaces rights, and the others need those of reader
        }
        if command == "account add":
            values |= {"url": "https://partner.example/v3", "login": "MZP0000002"}
        return shlex.join(filled(line or case.line, values))

    def tidy(self) -> None:
        """Clear the partner's faults, and have a state that was changed set up again.

        The partner and its one issuing CA are shared: a test that makes a further CA breaks those after it.
        """
        assert len(self.partner.authorities.issuing) == 1
        self.partner.faults.clear()
        self.partner.log.clear()
        if self.partner.registry.unlock(LOGIN).passwords != self._passwords:
            self._passwords = self.partner.registry.set_password(LOGIN, PASSWORD).passwords
        if self.writes or not self.watched or not self.before or self._files() != self.before.files:
            self.state, self.before = "", None
        self.writes, self.watched = [], True

    def assert_unchanged(self) -> None:
        """Assert that nothing was written, no token is left, and no file is new or other than it was."""
        assert self.watched
        assert self.before
        assert not self.writes
        assert not self._tokens() - self.before.tokens  # one that was there may have run out meanwhile
        assert self._files() == self.before.files

    def look(self) -> Look:
        vault = self.saved.system.vault.admin
        kept = (path for path in self._paths() if not path.startswith("signers/"))
        documents = {path: str(sorted(vault.versions(path).items())) for path in kept}
        return Look(documents, self._beside())

    def _beside(self) -> Beside:
        return Beside(self._tokens(), self._files())

    def _tokens(self) -> frozenset[str]:
        admin = self.saved.system.vault.admin
        found = frozenset(admin.ask("LIST", "auth/token/accessors")["data"]["keys"])
        return found - {admin.ask("GET", "auth/token/lookup-self")["data"]["accessor"]}  # another every ten minutes

    def _files(self) -> Mapping[str, str]:
        return {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.home.rglob("*"))
            if path.is_file()
        }

    def _note(self, phase: Phase, path: str) -> None:
        if phase is Phase.AFTER and "/signers/" not in path:  # keys of the broker itself, made when first needed
            self.writes.append(path)

    def _lay_out(self) -> None:
        self._good = self._good or {
            "good.csr": a_csr(rsa.generate_private_key(65537, 2048)),
            "reply.zip": self.saved.reply("requested").read_bytes(),
            "second.zip": self.saved.reply("again").read_bytes(),
            "outside.zip": zipped(self.saved.outside.files),
            "own.toml": OWN.encode(),
            "plain.toml": b"version = 1\n",
            "reader.token": Path(self.saved.token()).read_bytes(),
        }
        self._clear_home()
        for name, content in self._good.items():
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
        for name in self.saved.system.vault.admin.list(folder):
            if name.endswith("/"):
                yield from self._paths(f"{folder}{name}")
            else:
                yield f"{folder}{name}"


OWN: Final = """
schema = 1
name = "own-partner"
title = "A custom partner"
[environments.production]
base_url = "https://api.own.example/v1"
"""
