"""Every command that changes something, the state it starts from, and what must hold when a fault has befallen it."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
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
from broker.vault.policies import Role
from tests.chaos.killing import Fault, Killable, Point, Ran, audited_writes
from tests.chaos.mount_snapshot import MountSnapshot, accessors, fresh, listing
from tests.support.sources import BROKER
from tests.support.system import LOGIN, PASSWORD, SUBJECT, System, made_system
from tests.support.vault import mounted, throwaway, token_of

__all__ = ["COMMANDS", "STATES", "Calm", "Command", "Ground", "ground", "named"]

LATER: Final = 150.0  # seconds: a try that a kill left unanswered holds the next one up for two minutes
PROFILE: Final = "profile.toml"


@dataclass(frozen=True, slots=True)
class Command:
    """One command. Words in braces are filled in by the ground. `begins` names the state it starts from."""

    name: str
    begins: str
    line: str
    data: str = ""
    later: float = 0
    anew: bool = False  # run again after it was done, it makes what it makes anew: numbers differ, the sum does not
    done: tuple[int, ...] = (0,)  # codes of the same command again that say: it is done
    holds: bool = False  # stays until its lease ends; asked to finish, it ends well
    before: tuple[str, ...] = ()  # lines run first


COMMANDS: Final = (
    Command(
        "account add", "empty", "account add acme --environment stand-in --base-url {api} --login {login} {subject}"
    ),
    Command("app add", "account", "app add acme/reporting"),
    Command("app set", "added", "app set acme/reporting --client-id 11111111-1111-4111-8111-111111111111"),
    Command("app remove", "added", "app remove acme/reporting --yes", done=(0, 2)),
    Command("partner add", "empty", "partner add {home}/profile.toml"),
    Command("password set (first)", "account", "password set acme --password-file -", data="first", anew=True),
    Command("password set", "promoted", "password set acme --password-file -", data="second", anew=True),
    Command("trust set", "promoted", "trust set acme {reply} {accept}"),
    Command("csr new", "added", "csr new acme"),
    Command("csr new --out", "added", "csr new acme --out acme.csr"),
    Command("csr new --supersede", "requested", "csr new acme --supersede --yes", anew=True),
    Command("csr submit", "requested", "csr submit acme --to desk@partner.example"),
    Command("csr submit --sent-at", "requested", "csr submit acme --sent-at {now} --reference T-1"),
    Command("csr cancel", "requested", "csr cancel acme --yes"),
    Command("cert import (first)", "requested", "cert import acme {reply} {accept} --client-id-for reporting"),
    Command("cert import", "again", "cert import acme {reply}"),
    Command("rotation canary", "promoted", "rotation canary acme", later=LATER, anew=True),
    Command(
        "rotation canary --force",
        "locked",
        "rotation canary acme --generation 1 --force --reason asked",
        later=LATER,
        anew=True,
    ),
    Command("rotation promote (first)", "candidate", "rotation promote acme", later=LATER),
    Command("rotation promote", "renewed", "rotation promote acme", later=LATER),
    Command("rotation promote (joined)", "varied", "rotation promote acme --generation 2", later=LATER),
    Command("rotation rollback", "rotated", "rotation rollback acme", later=LATER),
    Command("rotation reject", "renewed", "rotation reject acme --generation 2 --reason wrong --yes"),
    Command("rotation retire", "rotated", "rotation retire acme --generation 1"),
    Command("bundle get", "promoted", "bundle get acme/reporting --consumer-token-file {token} --to bundle"),
    Command(
        "bundle get (again)",
        "promoted",
        "bundle get acme/reporting --consumer-token-file {token} --to bundle",
        before=("bundle get acme/reporting --consumer-token-file {token} --to bundle",),
    ),
    Command(
        "bundle get (all formats, after another client_id)",
        "promoted",
        "bundle get acme/reporting --consumer-token-file {token} --to bundle --format keystore.p12 --format curl.conf "
        "--format truststore.p12 --format env",
        before=(
            "bundle get acme/reporting --consumer-token-file {token} --to bundle",
            "app set acme/reporting --client-id 11111111-1111-4111-8111-111111111111",
        ),
    ),
    Command(
        "bundle get --hold",
        "promoted",
        "bundle get acme/reporting --consumer-token-file {token} --to bundle --hold --ttl 1s",
        holds=True,
    ),
    Command("init", "empty", "init --vault https://vault.example:8200 --mount other --out new.toml"),
    Command("vault enrol", "added", "vault enrol {consumer} --right acme/reporting --token-file reader.token"),
    Command("vault enrol --login-dir", "added", "vault enrol {consumer} --right acme/reporting --login-dir reader"),
    Command("vault setup", "empty", "vault setup"),
    Command("vault setup --login-dir", "empty", "vault setup --login-dir logins"),
    Command("evidence anchor", "promoted", "evidence anchor", anew=True),
    Command("evidence export", "anchored", "evidence export all.jsonl"),
)

# Each state is made from an earlier one by these lines
STATES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "account": ("empty", (COMMANDS[0].line,)),
    "added": ("account", ("password set acme --password-file {home}/password", "app add acme/reporting")),
    "requested": ("added", ("csr new acme",)),
    "candidate": ("requested", ("cert import acme {reply} {accept} --client-id-for reporting",)),
    "promoted": ("candidate", ("rotation promote acme",)),
    "anchored": ("promoted", ("evidence anchor",)),
    "again": ("promoted", ("csr new acme",)),
    "renewed": ("again", ("cert import acme {reply}",)),
    "rotated": ("renewed", ("rotation promote acme",)),
    "varied": ("renewed", ("password set acme --password-file {home}/password", "rotation promote acme")),
    "locked": ("promoted", ("password set acme --password-file {home}/wrong", "!rotation canary acme --generation 2")),
}


def named(commands: Iterable[Command]) -> list[ParameterSet]:
    """Return the names of `commands` as parameters."""
    return [pytest.param(command.name) for command in commands]


@dataclass(frozen=True, slots=True)
class Calm:
    """A command that nothing befell."""

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
    shelves: dict[str, MountSnapshot] = field(default_factory=dict)
    replies: dict[str, Path] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    facts: dict[str, str] = field(default_factory=dict)
    renew_at: float = 0.0
    published: set[str] = field(default_factory=set)

    def begin(self, command: Command) -> None:
        """Make everything as `command` finds it."""
        fresh(self.here)
        self._be(command.begins)
        self.facts["now"] = datetime.now(UTC).isoformat()  # after the request was drafted, which may be just now
        number = next(self.numbers)
        self.facts |= {"consumer": f"reader-{number}", "mount": f"broker-new-{number}"}
        for line in command.before:
            assert self._line(line).code == 0, line
        self.published = {path.name for path in (self.here / "bundle").glob("gen-*")}

    def calm(self, command: Command) -> Calm:
        """Run `command` with nothing in its way."""
        self.begin(command)
        with audited_writes(self.log) as vault:
            ran = self.run(command)
        assert ran.code == 0, f"{command.name}: {ran.code} {ran.ended.err}"
        return Calm(ran, tuple(vault), self.outcome(command), listing(self.here))

    def run(self, command: Command, *, at: int = 0, fault: Fault | None = None, later: float = 0) -> Ran:
        """Run `command` on what is there."""
        return self._line(command.line, data=command.data, at=at, fault=fault, later=later)

    def outcome(self, command: Command) -> Mapping[str, Any]:
        """Return what all came to, as `command` may be held to it."""
        snapshot = MountSnapshot.of(self.system.vault.admin)
        snapshot.assert_sound(finished=True)
        found = snapshot.outcome(anew=command.anew)
        if "--login-dir" in command.line:
            found["secret-ids"] = self._secret_ids(command)
        if command.name.startswith("vault setup"):
            planned = self._line("vault setup --dry-run -o json").ended.out
            found["set up"] = planned.replace(self.facts["mount"], "broker-new")
        return found

    def _secret_ids(self, command: Command) -> list[int]:
        """Return how many each role has that `command` makes a login for: one that nobody knows is an orphan."""
        admin, enrolling = self.system.vault.admin, command.name.startswith("vault enrol")
        logins = self.system.vault.settings.mount if enrolling else self.facts["mount"]
        roles = [f"consumer-{self.facts['consumer']}"] if enrolling else [role.value for role in Role]
        found: list[Any] = [admin.ask("LIST", f"auth/{logins}/role/{role}/secret-id") for role in roles]
        return [len(answer["data"]["keys"]) for answer in found]

    def again(self, command: Command, calm: Calm, *, anew: bool = False) -> None:
        """Run `command` again after a fault: it must end as if there had been none.

        With `anew`, its directory went, and what it held before: these files are the first then, and Vault still knows
        the secret-ids of logins that went.
        """
        MountSnapshot.of(self.system.vault.admin).assert_sound(finished=False)
        ran = self.run(command, later=command.later)
        assert ran.code in command.done, f"again: {ran.code} {ran.ended.err}"
        verified = self._line("evidence verify --all", plain=True)
        assert verified.code == 0, verified.ended.out
        assert (anew and self.published) or listing(self.here) == calm.files
        unknown = {"secret-ids"} if anew else set()
        found = self.outcome(command)
        assert {k: v for k, v in found.items() if k not in unknown} == {
            k: v for k, v in calm.outcome.items() if k not in unknown
        }

    def killed(self, command: Command, calm: Calm, point: Point, fault: Fault) -> Ran:
        """Let `fault` befall `command` at `point`, check what it leaves, and run it again."""
        self.begin(command)
        struck = self.run(command, at=point.number, fault=fault)
        assert struck.stems == calm.ran.stems[: len(struck.stems)], "it did not do the same as before"
        self.again(command, calm)
        return struck

    def interrupted(self, command: Command, calm: Calm, point: Point, fault: Fault) -> Ran:
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
        if point.what.startswith("open") and fault["phase"] == "after":  # nobody was told yet that it is there
            for path in self.here.rglob(".*"):
                assert not path.stat().st_size, f"{path.name} is left"
                path.unlink()
        self.assert_nothing_half()
        self.again(command, calm)
        return struck

    def failed(self, command: Command, calm: Calm, point: Point, fault: Fault) -> Ran:
        """Let a write of `command` to disk fail: it tells in our words, publishes no half, and can be run again."""
        admin = self.system.vault.admin
        self.begin(command)
        before = accessors(admin)
        struck = self.run(command, at=point.number, fault=fault)
        self.assert_told(struck)
        assert len(accessors(admin) - before) <= self._made(command, struck), "tokens are left"
        self.assert_nothing_half(staying=point.what.partition(" ")[2] if command.holds and struck.code else "")
        anew = "vanish" in fault
        self.here.mkdir(exist_ok=True)
        self.again(command, calm, anew=anew)
        self.assert_nothing_half()
        return struck

    def assert_told(self, struck: Ran) -> None:
        """Assert that what failed says so, in words of ours and with an exit code that has a meaning."""
        err = struck.ended.err
        assert struck.code in (0, 2, 3, 5, 6, 8), f"{struck.code} {err}"
        assert bool(struck.code) == err.count("error: "), err
        assert "fault in the broker" not in err, err

    def assert_nothing_half(self, *, staying: str = "") -> None:
        """Assert that each name is whole, and no working file is left.

        The file `staying`, which a holder that ended could not remove, may stay where nothing points any more.
        """
        names = {Path(path).name for path, *_ in listing(self.here)}
        assert not [name for name in names if name.startswith(".")], f"working files are left: {names}"
        bundle = self.here / "bundle"
        current = bundle / "current"
        held = {path.name for path in bundle.glob("gen-*") if {f.name for f in path.iterdir()} <= {staying}}
        made = {path.name for path in bundle.glob("gen-*")} - self.published - (held if staying else set())
        assert made <= {current.readlink().name if current.is_symlink() else ""}, f"{made} that nothing points at"
        if current.is_symlink():
            manifest = json.loads((current / "manifest.json").read_text())
            for name, told in manifest["files"].items():  # the digest of what can be guessed is not told
                content = (current / name).read_bytes()
                assert told.get("sha256", hashlib.sha256(content).hexdigest()) == hashlib.sha256(content).hexdigest()

    def _made(self, command: Command, ran: Ran) -> int:
        """Return how many tokens the command was asked to make, and had."""
        return int("--token-file" in command.line and len(ran.points) >= 1)

    def _line(self, line: str, *, plain: bool = False, data: str = "", **fault: Any) -> Ran:
        words = [w for word in line.split() for w in self._filled(word)]
        wanting = {} if plain else self._administration(words)
        return Killable(self.system.environment).run(
            *words, cwd=self.here, data=data.encode(), changes=wanting, **fault
        )

    def _filled(self, word: str) -> list[str]:
        several = {"{accept}": self.system.accepting, "{subject}": _subject}
        return list(several[word]()) if word in several else [word.format(**self.facts)]

    def _administration(self, words: list[str]) -> dict[str, str]:
        """Setting up needs a token of somebody's."""
        if words[0] != "vault":
            return {}
        token = {"VAULT_TOKEN": self.facts["administrator"]}
        return token | ({"BROKER_MOUNT": self.facts["mount"]} if words[1] == "setup" else {})

    def _be(self, state: str) -> None:
        admin = self.system.vault.admin
        if state in self.shelves:
            self.shelves[state].restore(admin)
        else:
            parent, lines = STATES[state]
            self._be(parent)
            for line in lines:
                self._step(line)
            self.shelves[state] = MountSnapshot.of(admin)
        if state in ("requested", "again") and state not in self.replies:
            self.replies[state] = self.system.reply()
        self.facts["reply"] = str(self.replies.get("again" if state == "again" else "requested", ""))
        if state not in ("empty", "account"):
            self._be_consumer()

    def _be_consumer(self) -> None:
        """See that a consumer has a token with minutes to live."""
        if time.monotonic() > self.renew_at:
            self.facts["token"] = str(self.system.consumer("acme/reporting"))
            self.renew_at = time.monotonic() + 300

    def _step(self, line: str) -> None:
        ran = self._line(line.removeprefix("!"))
        assert bool(ran.code) is line.startswith("!"), f"{line}: {ran.code} {ran.ended.err}"


def _subject() -> list[str]:
    return [part for pair in SUBJECT for part in ("--subject", pair)]


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Yield a vault of its own that keeps an audit log, a partner, and a system."""
    with ExitStack() as stack:
        embedded = stack.enter_context(throwaway(Options(audit=True)))
        vault = stack.enter_context(mounted((embedded, stack.enter_context(administered(embedded)))))
        partner = stack.enter_context(Standin(directory / "partner", accounts={LOGIN: PASSWORD}))
        system = stack.enter_context(made_system(vault, partner))
        made = Ground(system, embedded.running.home.audit_log, system.home / "here")
        made.shelves["empty"] = MountSnapshot()
        fresh(made.here)
        profile = (BROKER / "partners" / "profiles" / "stellantis.toml").read_text()
        (system.home / "password").write_text(PASSWORD)
        (system.home / "wrong").write_text(f"{PASSWORD}-wrong")
        (system.home / PROFILE).write_text(profile.replace('name = "stellantis"', 'name = "own"'))
        made.facts |= {
            "home": str(system.home),
            "api": partner.api_url,
            "login": LOGIN,
            "administrator": token_of(vault.admin, policies=["embedded-setup"], ttl="4h").reveal(),
        }
        yield made
