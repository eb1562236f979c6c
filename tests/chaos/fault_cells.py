"""The matrix of faults and commands. A cell is one fault at one request of one command, and how that must end."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from partner_standin import Standin

from broker.embedded.up import Embedded
from broker.model.account import Account
from broker.vault.connection import Connection
from tests.support.catalogue import CASES, GOOD, Case, filled
from tests.support.ended import Ended
from tests.support.proxy import Cue, Fault, Passed, Proxy, proxied
from tests.support.saved_states import LATER, SavedStates
from tests.support.system import LOGIN, PASSWORD, made_system
from tests.support.vault import mounted, token_of

__all__ = ["COMMANDS", "Bench", "Case", "Cell", "Tried", "all_cells", "benched", "lasting_cells", "some_cells"]

_PATIENCE: Final = 3  # seconds, as --timeout
_AT_MOST: Final = 4 * _PATIENCE + 2  # in all, for a command that meets a fault on every request
_CONSUMER: Final = "newer"  # that commands enrol
_AGE: Final = re.compile(r"\b(\d+(min|h|d)|\d+ (minute|hour|day)s?|less than a minute)\b")
_ENDS: Final = frozenset({0, 3, 5, 8})
_LEFT_OUT: Final = frozenset(
    {
        "password set (first)",
        "csr new --out",
        "cert import (second)",
        "rotation canary --force",
        "rotation promote (first)",
        "rotation promote (joined)",
        "bundle get (again)",
        "bundle get (credential process)",
        "bundle get (all formats, after another client_id)",
        "vault setup --login-dir",
        "vault enrol --login-dir",
    }
)


QUICK: Final = [fault for fault in Fault if not fault.name.startswith("HANGS")]  # the rest takes all patience
COMMANDS: Final[Mapping[str, Case]] = {
    case.name: case for case in CASES if case.vault and not case.apart and case.name not in _LEFT_OUT
}


@dataclass(frozen=True)
class Cell:
    """`fault` hits request `nth` of `command`, counted from 1, and all after it if `lasting`."""

    command: str
    fault: Fault
    nth: int
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.command} | {self.fault.name} | request {self.nth}{' and all after it' if self.lasting else ''}"


@dataclass(frozen=True)
class Tried:
    """The end of a cell, with a message for each thing that is wrong."""

    cell: Cell
    request: str
    code: int
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.cell} ({self.request}) → {self.code}: {'; '.join(self.wrong) or 'right'}"


@dataclass(frozen=True)
class _Clean:
    """A command's run without faults."""

    requests: tuple[str, ...]
    out: str
    shape: object


@dataclass
class Bench:
    """Bench for cells: saved states, and the proxy between them and their vault."""

    saved: SavedStates
    proxy: Proxy
    _clean: dict[str, _Clean] = field(default_factory=dict)
    _mounts: int = 0

    def requests(self, command: str) -> tuple[str, ...]:
        """Return the requests that `command` makes without faults."""
        return self._without_fault(command).requests

    def tried(self, cell: Cell) -> Tried:
        """Run the command with its fault, then again without, and judge."""
        command, clean = COMMANDS[cell.command], self._without_fault(cell.command)
        self._begin(command)
        began = time.monotonic()
        ended = self.ran(command, Cue(cell.fault, nth=cell.nth, lasting=cell.lasting))
        took, struck = time.monotonic() - began, self.struck
        wrong = [*_wrong_end(cell, command, ended, clean), *self._wrong_files(cell, ended)]
        if took > _AT_MOST:
            wrong.append(f"it took {took:.0f} s")
        if not struck:
            wrong.append("the fault hit nothing")
        # A read that is old, and says that there is nothing to do, is believed: CAS guards what is written
        if ended.code or (cell.fault is Fault.STALE and not self._as_wanted(cell.command)):
            again = self.ran(command, after=LATER)
            shutil.rmtree(self._directory, ignore_errors=True)
            if again.code not in command.done:
                wrong.append(f"without the fault it then ended in {again.code}: {again.err.strip()}")
        wrong += self._wrong_account(cell.command, repeated=bool(ended.code) and command.repeats)
        if command.sets_up and not all(item["action"] == "keep" for item in self._planned(command).json):
            wrong.append("it is not set up whole")
        wrong += self._wrong_consumer(command)
        return Tried(cell, str(struck[0]) if struck else "", ended.code, tuple(wrong))

    def _without_fault(self, name: str) -> _Clean:
        if name not in self._clean:
            command = COMMANDS[name]
            self._begin(command)
            ended = self.ran(command)
            shutil.rmtree(self._directory, ignore_errors=True)
            assert ended.code == 0, f"{name}: {ended.code}\n{ended.out}\n{ended.err}"
            requests = tuple(str(p) for p in self.proxy.passed)
            self._clean[name] = _Clean(requests, ended.out, _shape(self.saved.account()))
            assert not list(self.saved.faults())
        return self._clean[name]

    def _begin(self, command: Case) -> None:
        self.saved.begin(command)
        self._mounts += 1
        if command.command == "vault enrol" and command.writes:
            self.ran(GOOD["vault enrol"], line=f"vault enrol --remove {_CONSUMER}")
        for line in command.before:
            assert self.ran(command, line=line).code == 0, line

    def _planned(self, command: Case) -> Ended:
        return self.ran(command, more=("--dry-run", "-o", "json"))

    @property
    def struck(self) -> list[Passed]:
        """Requests of the last run that a fault hit."""
        return [passed for passed in self.proxy.passed if passed.fault]

    def ran(
        self,
        command: Case,
        *cues: Cue,
        line: str = "",
        more: Sequence[str] = (),
        after: timedelta = timedelta(0),
        changes: Mapping[str, str] = MappingProxyType({}),
    ) -> Ended:
        """Run `command`, or another `line`, with `cues` on what is there; `changes` go to its environment."""
        words = filled(line or command.line, self._values(command))
        changes = {**self._administration(command), **changes}
        self.proxy.plan(*cues)
        options = ("--timeout", f"{_PATIENCE}s")
        return self.saved.run(
            *options, *words, *more, given=command.input, address=self.proxy.address, after=after, changes=changes
        )

    def _administration(self, command: Case) -> Mapping[str, str]:
        if not command.administers:
            return {}
        token = token_of(self.saved.system.vault.admin, policies=["embedded-setup"], ttl="10m")
        mount = {"BROKER_MOUNT": f"broker-faulty-{self._mounts}"} if command.sets_up else {}
        return {"VAULT_TOKEN": token.reveal(), **mount}

    def _values(self, command: Case) -> Mapping[str, str | Sequence[str]]:
        token = {"token": self.saved.token()} if "{token}" in command.line else {}
        now = {"now": self.saved.sent_at()} if "{now}" in command.line else {}
        return {**self.saved.values(command.state), "number": command.number, "consumer": _CONSUMER, **token, **now}

    @property
    def _directory(self) -> Path:
        return self.saved.system.home / "bundle"

    def _wrong_files(self, cell: Cell, ended: Ended) -> Iterator[str]:
        there = (self._directory / "current").exists()
        if there and not any(r.holdings for r in self.saved.holders()):
            yield "a bundle is held, and no record says so"
        if cell.command == "bundle get" and there != (ended.code == 0):
            yield f"files are {'' if there else 'not '}there, and the code is {ended.code}"
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wrong_consumer(self, command: Case) -> Iterator[str]:
        """Yield what is wrong if `command` was to enrol a consumer, or to remove it, and did not."""
        if command.command != "vault enrol" or not command.writes:
            return
        listed = self.ran(GOOD["vault enrol"], line="vault enrol --list", more=("-o", "json")).json
        there = any(c["name"] == _CONSUMER and c["rights"] and c["logins"] for c in listed)
        if there == (command.name == "vault enrol --remove"):
            yield f"the consumer is {'' if there else 'not '}there"

    def _wrong_account(self, name: str, *, repeated: bool) -> Iterator[str]:
        if self.saved.account():
            self.saved.settle()
        yield from self.saved.faults()
        if not repeated and not self._as_wanted(name):
            yield f"the account is {_shape(self.saved.account())}, not {self._clean[name].shape}"

    def _as_wanted(self, name: str) -> bool:
        return _shape(self.saved.account()) == self._clean[name].shape


@contextmanager
def benched(server: tuple[Embedded, Connection]) -> Iterator[Bench]:
    """Yield a saved with a misbehaving vault."""
    with (
        tempfile.TemporaryDirectory(prefix="broker-faults-") as directory,
        mounted(server) as vault,
        Standin(Path(directory) / "partner", accounts={LOGIN: PASSWORD}) as partner,
        made_system(vault, partner) as system,
        proxied(
            vault.settings.address, lambda token: vault.admin.call("POST", "auth/token/revoke", {"token": token})
        ) as proxy,
    ):
        yield Bench(SavedStates(system), proxy)


def all_cells(bench: Bench, command: str, *, seed: int, depth: int = 0) -> Iterator[Cell]:
    """Yield every fault at every request of `command`, or at `depth` of them, of `seed`'s choice."""
    for fault in QUICK:
        yield from _at_requests(bench, command, fault, seed)[: depth or None]


def some_cells(bench: Bench, command: str, *, seed: int, share: int) -> Iterator[Cell]:
    """Yield every `share`-th fault at the first request that `all_cells` chooses; all commands together meet all."""
    first = list(COMMANDS).index(command) % share
    for fault in QUICK[first::share]:
        yield _at_requests(bench, command, fault, seed)[0]


def _at_requests(bench: Bench, command: str, fault: Fault, seed: int) -> list[Cell]:
    """Return `fault` at every request of `command`, in the order of `seed`."""
    numbers = range(1, len(bench.requests(command)) + 1)
    chosen = random.Random(f"{seed} {command} {fault.name}").sample(numbers, len(numbers))
    return [Cell(command, fault, nth) for nth in chosen]


def lasting_cells(bench: Bench, command: str, *, seed: int) -> Iterator[Cell]:
    """Yield a fault that stays, at a request of `seed`'s choice: a vault that is lost during `command`."""
    chance = random.Random(f"{seed} {command} lasting")
    fault = chance.choice([Fault.HANGS_BEFORE, Fault.HANGS_AFTER, Fault.SEALED, Fault.LOST, Fault.DENIED])
    yield Cell(command, fault, chance.randint(1, len(bench.requests(command)) - 1), lasting=True)


def _wrong_end(cell: Cell, command: Case, ended: Ended, clean: _Clean) -> Iterator[str]:
    # An auditor must report a missing document. No client can recognise an old answer of a node:
    # with a real node the index of the login prevents it, see test_cluster
    request = clean.requests[cell.nth - 1]
    first = request.endswith("/00000001")  # without its first entry nothing is sent: ADR 18
    missing_is = {2, 6} if first or request.startswith("POST") else {6 if command.judges else 2}
    reported = {Fault.MISSING: missing_is, Fault.STALE: {2, 6, 8}}
    missing = ended.code in reported.get(cell.fault, ())
    ends = {command.failing(code) if code else 0 for code in _ENDS} | set(command.done)
    if command.command == "rotation run":
        ends.add(6)  # an account failed, and the sweep went on with the others
    if ended.code not in ends and not missing:
        yield f"it ended in {ended.code}: {ended.err.strip()}"
    if cell.fault.passes and not cell.lasting and ended.code != 0 and not missing:
        yield f"it did not get over it: {ended.code}: {ended.err.strip()}"
    said = ended.out + ended.err
    if ended.code and not any(word in said for word in ("hint", "hint:")):
        yield f"no hint: {ended.err.strip()}"
    reads = not command.writes and command.command not in ("doctor", "partner list")
    same = reads and ended.code == 0 and cell.fault not in (Fault.STALE, Fault.MISSING)
    if same and _ageless(ended.out) != _ageless(clean.out):
        yield "it printed something else than it does without the fault"
    yield from (f"it printed {word!r}" for word in ("Traceback", "PRIVATE KEY", PASSWORD, "s.ey") if word in said)


def _ageless(text: str) -> str:
    """Return `text` without the ages in it, and the width that they give to a column."""
    return " ".join(_AGE.sub("", text).split())


def _shape(account: Account | None) -> object:
    """Return what must be the same after any fault. The password's slot may be another."""
    if account is None:
        return None
    return {
        "generations": [(g.number, g.stage.value) for g in account.generations],
        "requests": [(r.number, r.closed and r.closed.value, len(r.submissions)) for r in account.requests],
        "applications": [(a.name, a.client_id) for a in account.applications],
        "pinned": (account.issuing, account.trust),
    }
