"""Every command as tests run it, and the states that they start from: the one table that all harnesses read.

A new command gets its row here: what is typed, the state it starts from, whose logins it needs, where it writes. The
tests of bad input, JSON, clocks, roles, kills, faults and races then run it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from broker.model.role import Role

__all__ = ["ARRIVED", "CASES", "GOOD", "HELD", "SOON", "STATES", "Case", "filled"]

LATER: Final = 150.0  # seconds: a try that a kill left unanswered holds the next one up for two minutes
OPERATOR, ROTATOR, AUDITOR = (Role.OPERATOR,), (Role.ROTATOR,), (Role.AUDITOR,)
CANARY, SERVER, ANCHOR = (Role.CANARY,), (Role.SERVER,), (Role.ANCHOR,)
PROMOTING = (Role.ROTATOR, Role.CANARY)
IMPORTING = (Role.OPERATOR, *PROMOTING)
SOON: Final = f"{datetime.now(UTC) + timedelta(days=30):%F}"  # before the certificate of the stand-in ends
GET: Final = "{account}/{application} --consumer-token-file {token} --to bundle"
HELD: Final = "(a consumer holds a lease)"  # in place of a line, which cannot choose the id of a lease
ARRIVED: Final = "(a reply arrives by mail)"  # in place of a line, which cannot choose the id of a reply
SET: Final = "{account}/{application} --client-id 11111111-1111-4111-8111-111111111111"


@dataclass(frozen=True, slots=True)
class Case:
    """A command line that succeeds in `state`. `name` is the command, and what sets this case apart from others."""

    name: str
    typed: str = ""  # after the command's words; words in braces are filled in
    state: str = "promoted"
    roles: tuple[Role, ...] = ()  # whose logins it needs; none: any will do
    writes: str = ""  # any of vault, disk, partner; a login is no write
    input: bytes = b""
    number: str = "1"
    vault: bool = True  # asks a Vault
    done: tuple[int, ...] = (0,)  # codes of the same command again that say: it is done
    repeats: bool = False  # run again, it does its work again: numbers differ, the sum does not
    later: float = 0  # seconds to let pass before it is run again
    holds: bool = False  # stays until its lease ends; asked to finish, it ends well
    judges: bool = False  # its code is 6 if it finds something missing
    before: tuple[str, ...] = ()  # lines run first
    apart: bool = False  # starts or stops a server, or is many commands in a row: it has separate tests

    @property
    def command(self) -> str:
        """The words that name the command."""
        return re.split(r" (?=\(|--)", self.name)[0]

    def failing(self, code: int) -> int:
        """Return its code where other commands fail with `code`."""
        return {"needs-renewal": 255, "exec": 125}.get(self.command, code)

    @property
    def line(self) -> str:
        """All that is typed after `broker`."""
        return f"{self.command} {self.typed}".rstrip()

    @property
    def sets_up(self) -> bool:
        """Return whether it makes its own mount, with the token of an administrator."""
        return self.command == "vault setup" and bool(self.writes)

    @property
    def administers(self) -> bool:
        """Return whether it speaks with the token of an administrator."""
        return self.sets_up or self.command == "vault enrol" or "--consumer {" in self.typed


# {account}, {application} and {number} stand where a test of bad input puts something else
CASES: Final = (
    Case("demo", vault=False, apart=True),
    Case("init", "--vault embedded --out made.toml", "empty", writes="disk", vault=False),
    Case("status", roles=AUDITOR),
    Case("doctor", judges=True, done=(0, 6)),  # it reports a fault as a finding
    Case("explain", "{account} --generation {number}", roles=AUDITOR),
    Case(
        "account add",
        "{account} --environment stand-in --base-url {url} --login {login} --contact desk@partner.example {subject}",
        "empty",
        OPERATOR,
        writes="vault",
    ),
    Case(
        "account import",
        "{account} {set} --environment stand-in --base-url {url} --client-id-for {application} {accept} "
        "--held-by operations --yes",
        "empty",
        IMPORTING,
        writes="vault partner",
        later=LATER,
    ),
    Case("account list", roles=AUDITOR),
    Case("account show", "{account}", roles=AUDITOR),
    Case("account set", "{account} --renew-before 30d", roles=OPERATOR, writes="vault"),
    Case("account set --submit-via", "{account} --submit-via smtp --language fr", roles=OPERATOR, writes="vault"),
    Case("account set --subject", "{account} --subject L=Lyon", roles=OPERATOR, writes="vault"),
    Case("account suspend", "{account} --reason stolen", roles=OPERATOR, writes="vault"),
    Case("account resume", "{account}", "suspended", OPERATOR, writes="vault"),
    Case("account remove", "{account} --yes", "added", ROTATOR, writes="vault"),
    Case("account remove --force", "{account} --force --reason over --yes", roles=ROTATOR, writes="vault"),
    Case("app add", "{account}/{application}", "account", OPERATOR, writes="vault"),
    Case("app set", SET, roles=OPERATOR, writes="vault"),
    Case("app list", "{account}", roles=AUDITOR),
    Case("app remove", "{account}/{application} --yes", roles=OPERATOR, writes="vault", done=(0, 2)),
    Case(
        "password set",
        "{account} --password-file -",
        roles=OPERATOR,
        writes="vault",
        input=b"another\n",
        repeats=True,
    ),
    Case(
        "password set (first)",
        "{account} --password-file -",
        "account",
        OPERATOR,
        writes="vault",
        input=b"first\n",
        repeats=True,
    ),
    Case("password rotate", "{account}", roles=OPERATOR, writes="vault"),
    Case("password rotate --done", "{account} --done asked --note mail", "changing", OPERATOR, writes="vault"),
    Case(
        "password rotate --done (last)",
        "{account} --done dead",
        "changed",
        OPERATOR,
        writes="vault",
        done=(0, 6),
    ),
    Case(
        "password rotate --abort",
        "{account} --abort --reason over",
        "changing",
        OPERATOR,
        writes="vault",
        done=(0, 6),
    ),
    Case("trust set", "{account} {reply} {accept}", roles=OPERATOR, writes="vault"),
    Case("csr new", "{account}", "added", ROTATOR, writes="vault"),
    Case("csr new --out", "{account} --out acme.csr", "added", ROTATOR, writes="vault disk"),
    Case("csr new --supersede", "{account} --supersede --yes", "requested", ROTATOR, writes="vault", repeats=True),
    Case("csr new --reuse-key", "{account} --reuse-key", "reusable", ROTATOR, writes="vault"),
    Case(
        "csr new --compromised",
        "{account} --compromised --serving suspend --reason stolen",
        roles=ROTATOR,
        writes="vault",
    ),
    Case("csr show", "{account} --number {number}", roles=AUDITOR),
    Case("csr lint", "{csr}", vault=False),
    Case("csr submit", "{account} --out draft.eml", "requested", ROTATOR, writes="vault disk"),
    Case("csr submit --sent-at", "{account} --sent-at {now} --reference T-1", "requested", ROTATOR, writes="vault"),
    Case("csr submit --via", "{account} --via manual --yes", "requested", ROTATOR, writes="vault"),
    Case("csr submit --via portal", "{account} --via portal --yes", "own", ROTATOR, writes="vault"),
    Case("csr cancel", "{account} --yes", "requested", ROTATOR, writes="vault", done=(0, 6)),
    Case("csr refused", "{account} --reason 'wrong O' --yes", "requested", ROTATOR, writes="vault"),
    Case(
        "cert import",
        "{account} {reply} {accept} --client-id-for reporting",
        "requested",
        ROTATOR,
        writes="vault",
    ),
    Case("cert import (second)", "{account} {reply}", "again", ROTATOR, writes="vault"),
    Case(
        "cert import --reply",
        "{account} --reply {arrived} {accept} --client-id-for reporting",
        "arrived",
        ROTATOR,
        writes="vault",
        done=(0, 6),
    ),
    Case("cert inspect", "{reply}", vault=False),
    Case("reply list", "{account}", "arrived", AUDITOR),
    Case("reply show", "{arrived}", "arrived", AUDITOR),
    Case("reply dismiss", "{arrived} --reason forged", "arrived", ROTATOR, writes="vault"),
    Case("mail set", "smtp --password-file -", roles=OPERATOR, writes="vault", input=b"another\n", repeats=True),
    Case("mail test", apart=True),  # needs mail servers
    Case("needs-renewal", "{account} --renew-before 999d", roles=AUDITOR),
    Case("notify list", roles=AUDITOR),
    Case("notify test", "--all", apart=True),  # needs a channel
    Case("rotation status", "{account}", roles=AUDITOR),
    Case("rotation rehearse", "{account}", roles=AUDITOR, apart=True),  # at a vault and a stand-in of its own
    Case("rotation plan", "{account}", roles=AUDITOR),
    Case("rotation snooze", f"{{account}} --until {SOON} --reason holidays", roles=ROTATOR, writes="vault"),
    Case(
        "rotation snooze --end",
        "{account} --end",
        roles=ROTATOR,
        writes="vault",
        before=(f"rotation snooze {{account}} --until {SOON} --reason holidays",),
    ),
    Case(
        "rotation canary",
        "{account} --generation {number}",
        roles=CANARY,
        writes="vault partner",
        repeats=True,
        later=LATER,
    ),
    Case(
        "rotation canary --force",
        "{account} --generation {number} --force --reason asked",
        "locked",
        PROMOTING,
        writes="vault partner",
        repeats=True,
        later=LATER,
    ),
    Case(
        "rotation promote",
        "{account} --generation {number}",
        "renewed",
        PROMOTING,
        writes="vault partner",
        number="2",
        later=LATER,
    ),
    Case("rotation promote (first)", "{account}", "candidate", PROMOTING, writes="vault partner", later=LATER),
    Case(
        "rotation promote (joined)",
        "{account} --generation {number}",
        "varied",
        PROMOTING,
        writes="vault partner",
        number="2",
        later=LATER,
    ),
    Case(
        "rotation rollback",
        "{account} --generation {number}",
        "rotated",
        PROMOTING,
        writes="vault partner",
        later=LATER,
    ),
    Case(
        "rotation reject",
        "{account} --generation {number} --reason wrong --yes",
        "renewed",
        ROTATOR,
        writes="vault",
        number="2",
    ),
    Case("rotation retire", "{account} --generation {number}", "rotated", ROTATOR, writes="vault"),
    Case("rotation revoked", "{account} --generation {number}", "replaced", ROTATOR, writes="vault"),
    Case(
        "rotation returned",
        "{account} --held-by operations",
        "imported",
        ROTATOR,
        writes="vault",
        done=(0, 2),
    ),
    Case("rotation run", "--dry-run", roles=ROTATOR),  # without it: tests/e2e/test_scheduler_process.py
    Case("bundle get", GET, roles=SERVER, writes="vault disk"),
    Case("bundle get (again)", GET, roles=SERVER, writes="vault disk", before=(f"bundle get {GET}",)),
    Case(
        "bundle get (all formats, after another client_id)",
        f"{GET} --format keystore.p12 --format curl.conf --format truststore.p12 --format env",
        roles=SERVER,
        writes="vault disk",
        before=(f"bundle get {GET}", "app remove {account}/{application} --yes", f"app add {SET}"),
    ),
    Case("bundle get (credential process)", f"{GET} -o json", roles=SERVER, writes="vault disk"),
    Case("bundle get --hold", f"{GET} --hold --ttl 1s", roles=SERVER, writes="vault disk", holds=True),
    Case("agent", vault=False, apart=True),
    Case("exec", "{account}/{application} --consumer-token-file {token} -- true", roles=SERVER, apart=True),
    Case(
        "request",
        "{account}/{application} GET /fleets --consumer-token-file {token}",
        roles=SERVER,
        writes="vault partner",
        repeats=True,
    ),
    Case("lease list", state="held", roles=AUDITOR),
    Case("lease show", "{lease}", "held", AUDITOR),
    Case("lease renew", "bundle", vault=False, apart=True),
    Case(
        "lease revoke",
        "--account {account} --reason gone",
        "held",
        OPERATOR,
        writes="vault",
        done=(0, 2),
        repeats=True,  # killed between its two documents, its evidence says twice that the leases were ended
    ),
    Case("lease key", "rotate", "held", ROTATOR, writes="vault"),
    Case("lease revoke (id)", "{lease} --reason gone", "held", OPERATOR, writes="vault", done=(0, 2), repeats=True),
    Case("evidence show", "{account}", roles=AUDITOR),
    Case("evidence holders", "{account} --from 2026-01-01 --to 2100-01-01", roles=AUDITOR),
    Case("evidence verify", "{account}", roles=AUDITOR, judges=True),
    Case("evidence verify --all", "--all", "rotated", AUDITOR, judges=True),
    Case("evidence anchor", roles=ANCHOR, writes="vault", repeats=True, judges=True),
    Case("evidence export", "all.jsonl", "anchored", AUDITOR, writes="disk", judges=True),
    Case("partner list", vault=False),
    Case("partner list (stored)", "", "profiled"),
    Case("partner show", "stellantis", vault=False),
    Case("partner show (stored)", "own", "profiled"),
    Case("partner add", "{profile}", "added", OPERATOR, writes="vault"),
    Case("serve", roles=SERVER, apart=True),
    Case("vault start", vault=False, apart=True),
    Case("vault stop", vault=False, apart=True),
    Case("vault status"),
    Case("vault env", vault=False),
    Case("vault setup --print", "--print sh", vault=False),
    Case("vault setup --print (policy)", "--print admin-policy", vault=False),
    Case("vault setup (whole)", "", "empty", writes="vault"),
    Case("vault setup --login-dir", "--login-dir logins", "empty", writes="vault disk"),
    Case(
        "vault enrol",
        "{consumer} --right {account}/{application} --token-file made.token",
        "added",
        AUDITOR,
        writes="vault disk",
    ),
    Case(
        "vault enrol --login-dir",
        "{consumer} --right {account}/{application} --login-dir logins",
        "added",
        AUDITOR,
        writes="vault disk",
    ),
    Case("vault enrol --list", "--list"),
    Case(
        "vault enrol --remove",
        "--remove {consumer}",
        roles=AUDITOR,
        writes="vault",
        before=("vault enrol {consumer} --right {account}/{application} --token-file made.token",),
    ),
    Case("policy render", "{consumer} --right {account}/{application}", roles=AUDITOR),
    Case("policy render --script", "{consumer} --right {account}/{application} --script", roles=AUDITOR),
    Case("policy check", "{account}/{application} --token-file {token}", roles=SERVER),
    Case("config show", vault=False),
    Case("config check", vault=False),
)

# The first case of each command
GOOD: Final[Mapping[str, Case]] = MappingProxyType({case.command: case for case in reversed(CASES)})

# Each state is made from an earlier one by these lines; "!" begins one that must fail
STATES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "empty": ("", ()),
        "account": ("empty", (GOOD["account add"].line,)),
        "imported": ("empty", (GOOD["account import"].line,)),
        "added": ("account", ("password set {account} --password-file {password}", "app add {account}/{application}")),
        "requested": ("added", ("csr new {account}",)),
        "candidate": ("requested", (GOOD["cert import"].line,)),
        "arrived": ("requested", (ARRIVED,)),
        "promoted": ("candidate", ("rotation promote {account}",)),
        "anchored": ("promoted", ("evidence anchor",)),
        "again": ("promoted", ("csr new {account}",)),
        "renewed": ("again", ("cert import {account} {reply}",)),
        "rotated": ("renewed", ("rotation promote {account}",)),
        "compromised": ("promoted", ("csr new {account} --compromised --serving keep --reason stolen",)),
        "replaced": ("compromised", ("cert import {account} {reply}", "rotation promote {account}")),
        "own": (
            "empty",
            (
                "partner add {profile}",
                f"{GOOD['account add'].line} --profile own",
                "password set {account} --password-file {password}",
                "app add {account}/{application}",
                "csr new {account}",
            ),
        ),
        "reusable": ("own", (GOOD["cert import"].line, "rotation promote {account}")),
        "changing": ("promoted", ("password rotate {account}",)),
        "changed": (
            "changing",
            (
                "password rotate {account} --done asked",
                "password rotate {account} --done set",
                "password set {account} --password-file {password}",
                "rotation promote {account}",
            ),
        ),
        "suspended": ("promoted", ("account suspend {account} --reason stolen",)),
        "held": ("promoted", (HELD,)),
        "overlapping": ("rotated", (HELD,)),
        "profiled": ("rotated", ("partner add {profile}",)),
        "varied": (
            "renewed",
            ("password set {account} --password-file {password}", "rotation promote {account}"),
        ),
        "locked": (
            "promoted",
            ("password set {account} --password-file {wrong}", "!rotation canary {account} --generation 2"),
        ),
    }
)


def filled(line: str, values: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Return the words of `line`, those in braces filled in; a value of several words takes their places."""
    words: list[str] = []
    for word in shlex.split(line):
        value = values[word[1:-1]] if re.fullmatch(r"\{\w+\}", word) else word.format_map(values)
        words += [value] if isinstance(value, str) else value
    return words
