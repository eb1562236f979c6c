"""Histories: commands raced against each other on one account, what each said, and what Vault holds in the end.

An `Arena` lives as long as a module of tests; every history begins on an account as it was. `judged` finds what is
wrong: an order that `command_model` cannot explain, and whatever is doubled, lost, forked or orphaned among the
documents, which are read from Vault as they lie there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from partner_standin import Standin

from broker.copies import replace
from broker.embedded.up import Embedded
from broker.model.names import AccountName
from broker.vault.connection import Connection
from tests.chaos.account_model import State, state_of
from tests.chaos.command_model import COMMANDS
from tests.chaos.linearizable import Operation, Search
from tests.chaos.racing import DIED, Raced, Starter, Wanted
from tests.support.catalogue import SOON
from tests.support.counts import TALLY
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import mounted

__all__ = ["Act", "Arena", "Race", "arena", "documents_faults"]

GENESIS: Final = "0" * 64
STATES: Final[Mapping[str, tuple[str, ...]]] = {  # with those whose requests the partner has answered by then, in order
    "added": (),
    "requested": ("requested",),
    "candidate": ("requested",),
    "promoted": ("requested",),
    "again": ("requested", "again"),
    "renewed": ("requested", "again"),
    "rotated": ("requested", "again"),
    "compromised": ("requested", "compromised"),
    "replaced": ("requested", "compromised"),
    "reusable": ("own",),
    "changing": ("requested",),
    "changed": ("requested",),
    "overlapping": ("requested", "again"),
}
_NUMBERS: Final = {  # the number in a command's output
    "csr cancel": r"signing request (\d+) of \S+ is ",
    "csr refused": r"signing request (\d+) of \S+ is ",
    "password set": r"password (\d+) of \S+ is stored",
}
_ASKING: Final = ("csr cancel", "csr refused", "rotation reject")
_REASONED: Final = ("csr refused", "rotation reject", "lease revoke")
_JSON: Final = {
    "csr new": "number",
    "csr submit": "number",
    "cert import": "generation",
    "lease key": "newest",
    "rotation canary": "generation",
    "rotation promote": "generation",
    "rotation rollback": "generation",
}


@dataclass(frozen=True)
class Act:
    """A command of the model, by name and arguments."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def typed(self, account: str, reply: Path | None) -> tuple[list[str], str]:
        """Return what a person types for it, and what goes to standard input."""
        words, given = [*self.name.split(), account], self.arguments
        if self.name.startswith("app "):
            words[-1] += f"/{given['application']}"
            words += ["--client-id", given["client_id"]] if given.get("client_id") else []
            words += ["--yes"] if self.name == "app remove" else []
        elif self.name == "cert import":
            words += [str(reply), *given.get("accepting", ())]
            words += ["--client-id-for", given["application"]] if given.get("application") else []
        elif self.name == "csr submit":
            words += ["--out", f"{given['reference']}.eml", "--reference", given["reference"]]
        elif self.name == "account set":
            words += ["--renewal", given["renewal"]]
        elif self.name == "rotation snooze":
            words += ["--end"] if given.get("end") else ["--until", SOON, "--reason", "raced"]
        elif self.name == "password set":
            return [*words, "--password-file", "-"], given["password"]
        elif self.name.startswith("lease "):
            words[-1:] = ["rotate"] if self.name == "lease key" else ["--account", account]
        return [*words, *self._options(), *(["-o", "json"] if self.name in _JSON else [])], ""

    def _options(self) -> Iterator[str]:
        given = self.arguments
        for name in ("done", "generation"):
            if given.get(name):
                yield from (f"--{name}", str(given[name]))
        yield from (
            f"--{name}" for name in ("again", "abort", "compromised", "reuse-key", "supersede") if given.get(name)
        )
        if given.get("compromised"):
            yield from ("--serving", given["compromised"])
        if self.name in _ASKING or given.get("supersede"):
            yield "--yes"
        if given.get("forced"):
            yield "--force"
        if self.name in _REASONED or any(given.get(name) for name in ("abort", "compromised", "forced")):
            yield from ("--reason", "raced")

    def operation(self, raced: Raced) -> Operation:
        """Return it as seen from outside."""
        number = 0
        if raced.code == 0 and self.name in _JSON:
            number = int(raced.json[_JSON[self.name]])
        elif raced.code == 0 and self.name in _NUMBERS:
            found = re.search(_NUMBERS[self.name], raced.err)
            number = int(found.group(1)) if found else 0
        return Operation(self.name, raced.start, raced.end, raced.code, number, raced.err, self.arguments)


@dataclass
class Race:
    """One account, from a state on: the commands that were raced on it, and how they ended."""

    account: str
    before: State
    passwords: dict[int, str]
    asked: int = 0  # requests that the partner had seen before
    tried: int = 0  # tries reserved before
    replies: dict[int, Path] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    ended: list[Raced] = field(default_factory=list)

    @property
    def codes(self) -> list[int]:
        return [operation.code for operation in self.operations]


@dataclass
class Arena:
    """A system in which many histories happen, one after the other, on one account."""

    saved: SavedStates
    starter: Starter

    @property
    def system(self) -> System:
        return self.saved.system

    def begun(self, state: str = "added") -> Race:
        """Return the account in one of `STATES`, as if nothing had happened to it since, ready to race on."""
        replies = {n: self.saved.reply(answered) for n, answered in enumerate(STATES[state], 1)}
        self.saved.put(state)
        stored = self.system.vault.admin.list(f"passwords/{ACCOUNT}")
        race = Race(ACCOUNT, State(), {int(number): PASSWORD for number in stored}, replies=replies)
        race.before, race.tried, race.asked = self.stored(race), self._tried(race), self._asked()
        return race

    def imported(self, race: Race) -> Act | None:
        """Return the import of a reply to the open request, None if none waits."""
        request = self.stored(race).open
        if request is None:
            return None
        if request.number not in race.replies:
            self._answer(race)
        with zipfile.ZipFile(race.replies[request.number]) as reply:
            client_id = reply.read("client_id.txt").decode().strip()
        what = {"request": request.number, "application": "reporting", "client_id": client_id}
        return Act("cert import", {**what, "accepting": self.system.accepting()})

    def _answer(self, race: Race) -> None:
        """Let the partner answer the open request."""
        request = self.stored(race).open
        assert request
        race.replies[request.number] = self.system.reply(race.account)

    def race(
        self, race: Race, *acts: Act, seed: int = 0, slowness: float = 0.01, dies_after: Sequence[str] = ()
    ) -> Race:
        """Run `acts` concurrently, and add them to the race."""
        deaths = itertools.chain(dies_after, itertools.repeat(""))
        wanted = [
            replace(self._wanted(race, act), seed=100 * seed + number, slowness=slowness, dies_after=death)
            for number, (act, death) in enumerate(zip(acts, deaths, strict=False))
        ]
        return self._ended(race, acts, self.starter.at_once(*wanted))

    def overtaken(self, race: Race, slow: Act, *others: Act, waits: str) -> Race:
        """Let `others` happen, one after the other, while `slow` waits at `waits`."""
        wanted = [self._wanted(race, act) for act in others]
        ended = self.starter.overtaken(replace(self._wanted(race, slow), waits=waits), *wanted)
        return self._ended(race, (slow, *others), ended)

    def _wanted(self, race: Race, act: Act) -> Wanted:
        request = act.arguments.get("request", 0)
        if request and request not in race.replies:
            self._answer(race)
        return Wanted(*act.typed(race.account, race.replies.get(request)))

    def _ended(self, race: Race, acts: Sequence[Act], ended: Sequence[Raced]) -> Race:
        for act, raced in zip(acts, ended, strict=True):
            operation = act.operation(raced)
            race.ended.append(raced)
            if raced.code != DIED:
                race.operations.append(operation)
            if act.name == "password set" and raced.code == 0:
                race.passwords[operation.number] = act.arguments["password"]
        return race

    def stored(self, race: Race) -> State:
        """Return the account as Vault holds it."""
        good = [number for number, text in race.passwords.items() if text == PASSWORD]
        document = self.system.vault.admin.read(f"accounts/{race.account}").data
        taken = len(self.system.vault.admin.list(f"passwords/{race.account}"))
        held = {holding.generation for record in self.saved.holders() for holding in record.holdings}
        keys = self.system.vault.admin.read_or_none("signers/lease")
        newest = (int(keys.data["value"]["newest"]), "made" in keys.data["value"]) if keys else (0, False)
        return state_of(document, good=good, taken=taken, held=held, lease_key=newest)

    def judged(self, race: Race) -> None:
        """Assert that some order explains the race, and that nothing is doubled, lost, forked or orphaned."""
        TALLY["histories checked"] += 1
        search = Search(COMMANDS, race.operations, race.before, self.stored(race))
        assert search.linearizable, search.report
        faults = [*_csr_faults(race), *documents_faults(self.system, race.account, race.passwords, settled=False)]
        with self.system.broker() as broker:
            broker.settle(AccountName(race.account))  # an operator's command leaves to the rotator what is doomed
        faults += documents_faults(self.system, race.account, race.passwords)
        tried, asked = self._tried(race) - race.tried, self._asked() - race.asked
        if tried != asked:
            faults.append(f"{tried} tries were reserved, and the partner saw {asked}")
        assert not faults, "\n".join([*faults, search.report, *(f"{o}" for o in race.operations)])

    def _asked(self) -> int:
        entries = self.system.partner.log.entries()
        return entries[-1].number if entries else 0

    def _tried(self, race: Race) -> int:
        return sum(e["what"] == "canary-sent" for e in _evidence(self.system, race.account))


@pytest.fixture(scope="module")
def arena(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A system that outlives its histories."""
    directory = tmp_path_factory.mktemp("partner")
    with (
        mounted(vault_server) as vault,
        Standin(directory, accounts={LOGIN: PASSWORD}) as partner,
        made_system(vault, partner) as system,
        Starter(system.home, system.environment) as starter,
    ):
        made = Arena(SavedStates(system), starter)
        yield made
        assert not partner.crashes


# invariants of the documents


def documents_faults(system: System, account: str, passwords: Mapping[int, str], *, settled: bool = True) -> list[str]:
    """Return what is doubled, lost, forked, orphaned or left undone; `settled`: once a rotator has been there."""
    value = system.vault.admin.read(f"accounts/{account}").data["value"]
    evidence = _evidence(system, account)
    faults = [*_chain_faults(evidence, value["head"]), *_story_faults(evidence, value)]
    if value["outbox"]:
        faults.append(f"{len(value['outbox'])} entries of evidence were left in the outbox")
    if settled and (value["doomed_keys"] or value["doomed_secrets"]):
        faults.append(f"doomed, and not destroyed: {value['doomed_keys']} {value['doomed_secrets']}")
    faults += _canary_faults(evidence)
    return [*faults, *(_secrets_faults(system, account, value, passwords) if settled else ())]


def _csr_faults(race: Race) -> Iterator[str]:
    shown = {(e.json["number"], e.json["csr"]) for e in race.ended if e.arguments[:2] == ["csr", "new"] and not e.code}
    for number, times in Counter(number for number, _ in shown).items():
        if times > 1:
            yield f"request {number} was shown with {times} CSRs"


def _evidence(system: System, account: str) -> list[dict[str, Any]]:
    admin, folder = system.vault.admin, f"evidence/accounts/{account}"
    return [dict(admin.read(f"{folder}/{name}").data["value"]) for name in admin.list(folder)]


def _chain_faults(evidence: Sequence[Mapping[str, Any]], head: Mapping[str, Any]) -> Iterator[str]:
    reached = (0, GENESIS)
    for entry in evidence:
        if (entry["number"] - 1, entry["before"]) != reached:
            yield f"entry {entry['number']} of the evidence does not follow entry {reached[0]}"
        if entry["hash"] != _hashed(entry):
            yield f"entry {entry['number']} of the evidence has a hash that is not its own"
        reached = (entry["number"], entry["hash"])
    if reached != (head["number"], head["hash"]):
        yield f"the evidence ends at entry {reached[0]}, the account's head is at {head['number']}"


def _hashed(entry: Mapping[str, Any]) -> str:
    content = {name: value for name, value in entry.items() if name != "hash"}
    content["at"] = re.sub(r"Z$", "+00:00", content["at"])
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _story_faults(evidence: Sequence[Mapping[str, Any]], value: Mapping[str, Any]) -> Iterator[str]:
    """Hold the evidence against the document: every thing once, and ended as the document says."""
    once = {"request-drafted": "request", "request-closed": "request", "generation-born": "generation"}
    once |= {"password-set": "password", "canary-sent": "attempt", "canary-answered": "attempt"}
    counted = Counter((e["what"], e["facts"][once[e["what"]]]) for e in evidence if e["what"] in once)
    for (what, number), times in counted.items():
        if times > 1:
            yield f"the evidence has {what} of {number} {times} times"
    requests = {e["facts"]["request"]: "open" for e in evidence if e["what"] == "request-drafted"}
    requests |= {e["facts"]["request"]: e["facts"]["closed"] for e in evidence if e["what"] == "request-closed"}
    stages = {}
    for entry in evidence:
        facts = entry["facts"]
        if entry["what"] == "generation-born":
            stages[facts["generation"]] = "candidate"
        elif entry["what"] == "generation-moved":
            stages[facts["generation"]] = facts["stage"]
            if "displaced" in facts:
                stages[facts["displaced"]] = facts["displaced_stage"]
    stored = {r["number"]: r["closed"] or "open" for r in value["requests"]}
    if (requests, stages) != (stored, {g["number"]: g["stage"] for g in value["generations"]}):
        yield f"the evidence leads to {requests}, {stages}; the document differs"


def _canary_faults(evidence: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    away = 0
    for entry in evidence:
        if entry["what"] == "canary-sent":
            if away:
                yield f"try {entry['facts']['attempt']} was sent while try {away} was on its way"
            away = entry["facts"]["attempt"]
        elif entry["what"] == "canary-answered" and entry["facts"]["attempt"] == away:
            away = 0


def _secrets_faults(
    system: System, account: str, value: Mapping[str, Any], passwords: Mapping[int, str]
) -> Iterator[str]:
    living = [g["parts"] for g in value["generations"] if g["stage"] != "retired"]
    keys = {int(p["key"].partition(":")[2]) for p in living if p["key"]} | {
        int(r["key"].partition(":")[2]) for r in value["requests"] if not r["closed"]
    }
    named = [*(p["secrets"] for p in living), value["secrets"]]
    in_use = {secrets["password"] for secrets in named if "password" in secrets}
    for kind, wanted in (("keys", keys), ("passwords", in_use)):
        there = {}
        for name in system.vault.admin.list(f"{kind}/{account}"):
            versions = system.vault.admin.versions(f"{kind}/{account}/{name}")
            there[int(name)] = any(versions.values())
            if len(versions) != 1:
                yield f"slot {name} of {kind} was written {len(versions)} times"
        alive = {number for number, is_there in there.items() if is_there}
        if alive != wanted:
            yield f"{kind} {sorted(alive)} are there, {sorted(wanted)} are in use"
    for number in in_use:
        text = system.vault.admin.read(f"passwords/{account}/{number}").data["value"]["password"]
        if text != passwords.get(number):
            yield f"password {number} is not the one that its command stored"
