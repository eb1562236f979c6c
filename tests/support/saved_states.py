"""A system whose states are kept and set up again in a moment, and commands that run inside this process.

For tests that try one command many hundred times: a state is copied into the mount, the command is run by
`broker.cli.main.run`, and what is stored afterwards is held against what the account says.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from broker.cli.main import run
from broker.compose import Wiring
from broker.model.account import Account
from broker.model.chain import verify
from broker.model.consumer import ConsumerRecord
from broker.model.names import AccountName
from broker.model.stage import Stage
from broker.vault.consumers import VaultConsumers
from broker.vault.documents import decoded
from broker.vault.enrolment import AppRole, consumer_role
from broker.vault.evidence import VaultEvidence
from broker.vault.layout import Access, right
from tests.support.sources import BROKER
from tests.support.system import LOGIN, PASSWORD, SUBJECT, Ended, System
from tests.support.vault import a_consumer, login

__all__ = ["ACCOUNT", "SavedStates", "State", "built"]

ACCOUNT: Final = "acme"
LATER: Final = timedelta(minutes=15)  # what a person waits: a try without an answer counts no longer
_LONG: Final = 6 * 60 * 60  # seconds that a token of the consumer's lives: no run takes so long
STATES: Final = ("empty", "added", "requested", "candidate", "promoted", "renewed", "rotated", "profiled")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """What the mount holds: the newest version of each path, None where it is destroyed; and the account before."""

    documents: Mapping[str, Document | None]
    before: Document | None = None  # the account as it was some changes ago: what a stale read shows


@dataclass
class SavedStates:
    """A system, its states by name, and the reply that each request is answered with."""

    system: System
    states: dict[str, State] = field(default_factory=dict)
    replies: list[Path] = field(default_factory=list)
    consumer: AppRole | None = None

    def run(
        self,
        *arguments: str,
        given: bytes = b"",
        address: str = "",
        after: timedelta = timedelta(0),
        wiring: Wiring | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run `broker ARGUMENTS` in this process, with the vault at `address`, on a clock that is `after` ahead."""
        environment = {**self.system.environment, **({"VAULT_ADDR": address} if address else {}), **(changes or {})}
        wiring = wiring or Wiring(clock=lambda: datetime.now(UTC) + after)
        raw = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in raw)
        here = Path.cwd()
        with ExitStack() as stack:
            stack.enter_context(patch.dict(os.environ, environment, clear=True))
            stack.enter_context(patch("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")))
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            stack.callback(os.chdir, here)
            os.chdir(self.system.home)
            code = run(arguments, wiring)
        return Ended(code, *(stream.getvalue().decode() for stream in raw))

    def ok(self, *arguments: str, given: bytes = b"") -> Ended:
        """Run `broker ARGUMENTS`, which must succeed."""
        ended = self.run(*arguments, given=given)
        assert ended.code == 0, f"broker {' '.join(arguments)}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    def put(self, name: str) -> None:
        """Make the mount hold state `name` and nothing else."""
        vault, mount = self.system.vault.admin, self.system.vault.settings.mount
        state = self.states[name]
        for path in self._paths():
            vault.call("DELETE", f"{mount}/metadata/{path}")
        for path, document in state.documents.items():
            stale = path == f"accounts/{ACCOUNT}" and state.before is not None
            if stale and state.before:
                vault.write(path, state.before, replacing=0)
            vault.write(path, document or {"destroyed": True}, replacing=int(stale))
            if document is None:
                vault.destroy_all(path)

    def keep(self, name: str) -> None:
        """Remember what the mount holds as state `name`."""
        vault = self.system.vault.admin
        stored = {path: vault.read_or_none(path) for path in self._paths()}
        before = next(reversed(self.states.values())).documents if self.states else {}
        documents = {path: found.data if found else None for path, found in stored.items()}
        self.states[name] = State(documents, before.get(f"accounts/{ACCOUNT}"))

    def account(self) -> Account | None:
        """Return the account as it is stored."""
        stored = self.system.vault.admin.read_or_none(f"accounts/{ACCOUNT}")
        return decoded(stored.data, Account, ACCOUNT) if stored else None

    def holders(self) -> tuple[ConsumerRecord, ...]:
        """Return the records of what consumers hold."""
        return tuple(VaultConsumers(self.system.vault.admin).all().found.values())

    def sent_at(self) -> str:
        """Return a time at which the open request may have been sent, the same each time."""
        account = self.account()
        assert account is not None
        return account.requests[-1].drafted_at.isoformat(timespec="microseconds")

    def settle(self) -> None:
        """Do what the next sweep would."""
        with self.system.broker() as broker:
            broker.settle(AccountName(ACCOUNT))

    def token(self) -> str:
        """Return the file with a fresh token of the consumer."""
        if self.consumer is None:
            rights = [right("stellantis", "stand-in", ACCOUNT, "reporting", Access.DIRECT)]
            self.consumer = a_consumer(self.system.vault.admin, "reader", rights)
            role = f"auth/{self.consumer.mount}/role/{consumer_role('reader')}"
            self.system.vault.admin.call("POST", role, {"token_ttl": _LONG})
        file = self.system.home / "reader.token"
        file.write_text(login(self.system.vault.admin, self.consumer).reveal())
        return str(file)

    def faults(self) -> Iterator[str]:
        """Yield, in words, in what the mount contradicts the settled account."""
        account, vault = self.account(), self.system.vault.admin
        if account is None:
            yield from (f"{path} belongs to no account" for path in self._paths() if not path.startswith("signers/"))
            return
        evidence = VaultEvidence(vault).kept(f"accounts/{ACCOUNT}").entries
        yield from (str(f) for f in verify(f"accounts/{ACCOUNT}", evidence, account.head))
        if account.outbox or account.doomed_keys or account.doomed_secrets:
            yield "it is not settled"
        keys = {f"kv:{n}" for n in self._alive("keys")}
        if keys != account.keys_in_use:
            yield f"keys {sorted(keys)} are stored, and {sorted(account.keys_in_use)} in use"
        secrets = {f"password:{n}" for n in self._alive("passwords")}
        if secrets != account.secrets_in_use:
            yield f"{sorted(secrets)} are stored, and {sorted(account.secrets_in_use)} in use"
        if len([r for r in account.requests if not r.closed]) > 1:
            yield "two requests are open"
        if len([g for g in account.generations if g.stage is Stage.CURRENT]) > 1:
            yield "two generations are current"
        if account.open_request:
            key = vault.read(f"keys/{ACCOUNT}/{account.open_request.number}").data["value"]
            if key["spki"] != account.open_request.spki:
                yield "the open request is not of its slot's key"

    def _alive(self, kind: str) -> list[str]:
        vault = self.system.vault.admin
        names = vault.list(f"{kind}/{ACCOUNT}")
        return [name for name in names if any(vault.versions(f"{kind}/{ACCOUNT}/{name}").values())]

    def _paths(self, folder: str = "") -> Iterator[str]:
        for name in self.system.vault.admin.list(folder):
            path = f"{folder}{name}"
            if name.endswith("/"):
                yield from self._paths(path)
            else:
                yield path


@contextmanager
def built(system: System) -> Iterator[SavedStates]:
    """Yield a saved in which every state has been gone through, by the commands that people type."""
    saved = SavedStates(system)
    steps: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: _add(saved),
        lambda: saved.ok("csr", "new", ACCOUNT),
        lambda: _answer(saved, *system.accepting(), "--client-id-for", "reporting"),
        lambda: saved.ok("rotation", "promote", ACCOUNT),
        lambda: _renew(saved),
        lambda: saved.ok("rotation", "promote", ACCOUNT),
        lambda: _add_profile(saved),
    )
    for name, step in zip(STATES, steps, strict=True):
        step()
        saved.keep(name)
    yield saved


def _add(saved: SavedStates) -> None:
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    url = saved.system.partner.api_url
    saved.ok(
        "account", "add", ACCOUNT, "--environment", "stand-in", "--base-url", url, "--login", LOGIN,
        "--contact", "desk@partner.example", *subject,
    )  # fmt: skip
    saved.ok("password", "set", ACCOUNT, "--password-file", "-", given=PASSWORD.encode())
    saved.ok("app", "add", f"{ACCOUNT}/reporting")


def _add_profile(saved: SavedStates) -> None:
    profile = (BROKER / "partners" / "profiles" / "stellantis.toml").read_text(encoding="utf-8")
    (saved.system.home / "own.toml").write_text(
        profile.replace('name = "stellantis"', 'name = "own"'), encoding="utf-8"
    )
    saved.ok("partner", "add", "own.toml")


def _renew(saved: SavedStates) -> None:
    saved.ok("csr", "new", ACCOUNT)
    _answer(saved)


def _answer(saved: SavedStates, *options: str) -> None:
    saved.replies.append(saved.system.reply(ACCOUNT))
    saved.ok("cert", "import", ACCOUNT, str(saved.replies[-1]), *options)
