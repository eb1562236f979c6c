"""Every command that changes something, its initial state, and the checks after a fault."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.mark import ParameterSet
from partner_standin import Standin

from broker.embedded.config import Options
from broker.embedded.up import administered
from broker.model.role import Role
from tests.chaos.killing import Fault, Killable, Point, Ran, audited_writes
from tests.chaos.mount_snapshot import MountSnapshot, accessors, fresh, listing
from tests.support.catalogue import CASES, Case, filled
from tests.support.saved_states import SavedStates
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import mounted, throwaway, token_of

__all__ = ["COMMANDS", "READS", "Calm", "Ground", "ground", "named"]

COMMANDS: Final = tuple(case for case in CASES if case.writes)  # every command that changes something
READS: Final = tuple(case for case in CASES if not case.writes and not case.apart)


def named(commands: Iterable[Case]) -> list[ParameterSet]:
    """Return the names of `commands` as parameters."""
    return [pytest.param(command.name) for command in commands]


@dataclass(frozen=True, slots=True)
class Calm:
    """A command's run without faults."""

    ran: Ran
    vault: tuple[str, ...]  # what Vault's audit log has of it
    outcome: Mapping[str, Any]
    files: list[tuple[str, str, int]]


@dataclass
class Ground:
    """A system that commands are killed in, and the states they start from."""

    system: System
    log: Path
    here: Path  # where commands run: what they leave there is compared
    administrator: str  # a token that may set up
    saved: SavedStates
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    facts: dict[str, str | Sequence[str]] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)

    def begin(self, command: Case) -> None:
        """Make everything as `command` finds it."""
        fresh(self.here)
        self.saved.begin(command)
        number = next(self.numbers)
        self.facts = {
            **self.saved.values(command.state),
            "now": datetime.now(UTC).isoformat(),  # after the request was drafted, which may be just now
            "number": command.number,
            "consumer": f"reader-{number}",
            "mount": f"broker-new-{number}",
        }
        if "{token}" in " ".join((command.line, *command.before)):
            self.facts["token"] = self.saved.token()
        for line in command.before:
            assert self._line(line).code == 0, line
        self.published = {path.name for path in (self.here / "bundle").glob("gen-*")}

    def calm(self, command: Case) -> Calm:
        """Run `command` with nothing in its way."""
        self.begin(command)
        with audited_writes(self.log) as vault:
            ran = self.run(command)
        assert ran.code == 0, f"{command.name}: {ran.code} {ran.ended.err}"
        return Calm(ran, tuple(vault), self.outcome(command), listing(self.here))

    def run(self, command: Case, *, at: int = 0, fault: Fault | None = None, later: float = 0) -> Ran:
        """Run `command` on what is there."""
        return self._line(command.line, data=command.input, at=at, fault=fault, later=later)

    def outcome(self, command: Case) -> Mapping[str, Any]:
        """Return the comparable result of `command`."""
        snapshot = MountSnapshot.of(self.system.vault.admin)
        snapshot.assert_sound(finished=True)
        found = snapshot.outcome(again=command.repeats)
        if "--login-dir" in command.line:
            found["secret-ids"] = self._secret_ids(command)
        if command.sets_up:
            planned = self._line("vault setup --dry-run -o json").ended.out
            found["set up"] = planned.replace(str(self.facts["mount"]), "broker-new")
        return found

    def _secret_ids(self, command: Case) -> list[int]:
        """Return how many each role has that `command` makes a login for: an unknown one is an orphan."""
        admin, enrolling = self.system.vault.admin, command.command == "vault enrol"
        logins = self.system.vault.settings.mount if enrolling else str(self.facts["mount"])
        roles = [f"consumer-{self.facts['consumer']}"] if enrolling else [role.value for role in Role]
        found: list[Any] = [admin.ask("LIST", f"auth/{logins}/role/{role}/secret-id") for role in roles]
        return [len(answer["data"]["keys"]) for answer in found]

    def again(self, command: Case, calm: Calm, *, emptied: bool = False) -> None:
        """Run `command` again after a fault: it must end as if there had been none.

        With `emptied`, its directory is gone with its files, while Vault still has the secret-ids of those logins.
        """
        MountSnapshot.of(self.system.vault.admin).assert_sound(finished=False)
        ran = self.run(command, later=command.later)
        assert ran.code in command.done, f"again: {ran.code} {ran.ended.err}"
        verified = self._line("evidence verify --all", plain=True)
        assert verified.code == 0, verified.ended.out
        assert (emptied and self.published) or listing(self.here) == calm.files
        unknown = {"secret-ids"} if emptied else set()
        found = self.outcome(command)
        assert {k: v for k, v in found.items() if k not in unknown} == {
            k: v for k, v in calm.outcome.items() if k not in unknown
        }

    def killed(self, command: Case, calm: Calm, point: Point, fault: Fault) -> Ran:
        """Inject `fault` into `command` at `point`, check what it leaves, and run it again."""
        self.begin(command)
        struck = self.run(command, at=point.number, fault=fault)
        assert struck.stems == calm.ran.stems[: len(struck.stems)], "it did not do the same as before"
        self.again(command, calm)
        return struck

    def interrupted(self, command: Case, calm: Calm, point: Point, fault: Fault) -> Ran:
        """Ask `command` at `point` to end: it gives its tokens back, and leaves no working file."""
        admin = self.system.vault.admin
        self.begin(command)
        before = accessors(admin)
        struck = self.run(command, at=point.number, fault=fault)
        code = 130 if fault["signal"] == signal.SIGINT else 143
        expected = (0, code) if command.holds else (code,)
        assert struck.code in expected, f"{struck.code} {struck.ended.err}"
        left = accessors(admin) - before
        in_flight = point.what.endswith("/login")  # its answer may not have reached us: its minutes end it
        assert len(left) <= in_flight + self._made(command, struck), f"{len(left)} tokens are left"
        if point.what.startswith("open") and fault["phase"] == "after":  # its descriptor is not known yet
            for path in self.here.rglob(".*"):
                assert not path.stat().st_size, f"{path.name} is left"
                path.unlink()
        self.assert_nothing_half()
        self.again(command, calm)
        return struck

    def failed(self, command: Case, calm: Calm, point: Point, fault: Fault) -> Ran:
        """Let a disk write of `command` fail: it reports an error, publishes nothing incomplete, and can run again."""
        admin = self.system.vault.admin
        self.begin(command)
        before = accessors(admin)
        struck = self.run(command, at=point.number, fault=fault)
        self.assert_reported(struck)
        assert len(accessors(admin) - before) <= self._made(command, struck), "tokens are left"
        self.assert_nothing_half(staying=point.what.partition(" ")[2] if command.holds and struck.code else "")
        emptied = "vanish" in fault
        self.here.mkdir(exist_ok=True)
        self.again(command, calm, emptied=emptied)
        self.assert_nothing_half()
        return struck

    def assert_reported(self, struck: Ran) -> None:
        """Assert that a failure is reported as an error with a documented exit code."""
        err = struck.ended.err
        assert struck.code in (0, 2, 3, 5, 6, 8, 9), f"{struck.code} {err}"
        assert bool(struck.code) == err.count("error: "), err
        assert "fault in the broker" not in err, err

    def assert_nothing_half(self, *, staying: str = "") -> None:
        """Assert that each name is whole, and no working file is left.

        The file `staying`, which a holder that ended could not remove, may stay if nothing points at it any more; the
        link `current`, if it points at nothing.
        """
        names = {Path(path).name for path, *_ in listing(self.here)}
        assert not [name for name in names if name.startswith(".")], f"working files are left: {names}"
        bundle = self.here / "bundle"
        current = bundle / "current"
        held = {path.name for path in bundle.glob("gen-*") if {f.name for f in path.iterdir()} <= {staying}}
        made = {path.name for path in bundle.glob("gen-*")} - self.published - (held if staying else set())
        assert made <= {current.readlink().name if current.is_symlink() else ""}, f"{made} that nothing points at"
        if current.is_symlink() and staying == "current":
            assert not list(current.iterdir()), "the link that could not be removed leads to files"
        elif current.is_symlink():
            manifest = json.loads((current / "manifest.json").read_text())
            for name, listed in manifest["files"].items():  # digests of guessable files are left out
                content = (current / name).read_bytes()
                assert listed.get("sha256", hashlib.sha256(content).hexdigest()) == hashlib.sha256(content).hexdigest()

    def _made(self, command: Case, ran: Ran) -> int:
        """Return how many tokens the command was asked to make, and had."""
        return int("--token-file" in command.line and len(ran.points) >= 1)

    def _line(self, line: str, *, plain: bool = False, data: bytes = b"", **fault: Any) -> Ran:
        words = filled(line, self.facts)
        wanting = {} if plain else self._administration(words)
        return Killable(self.system.environment).run(*words, cwd=self.here, data=data, changes=wanting, **fault)

    def _administration(self, words: list[str]) -> dict[str, str]:
        """Return the changes to the environment of a command that an administrator runs."""
        if words[0] != "vault":
            return {}
        mount = {"BROKER_MOUNT": str(self.facts["mount"])} if words[1] == "setup" else {}
        return {"VAULT_TOKEN": self.administrator, **mount}


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Yield a new vault with an audit log, a partner, and a system."""
    with ExitStack() as stack:
        embedded = stack.enter_context(throwaway(Options(audit=True)))
        vault = stack.enter_context(mounted((embedded, stack.enter_context(administered(embedded)))))
        partner = stack.enter_context(Standin(directory / "partner", accounts={LOGIN: PASSWORD}))
        system = stack.enter_context(made_system(vault, partner))
        token = token_of(vault.admin, policies=["embedded-setup"], ttl="4h").reveal()
        here = fresh(system.home / "here")
        yield Ground(system, embedded.running.home.audit_log, here, token, SavedStates(system))
