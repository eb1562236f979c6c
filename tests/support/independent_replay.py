"""An account told again from its evidence alone, by rules of its own; and where that differs from the document.

Part of the auditor: it shares no line with the broker, only the written rules (DESIGN.md), so that what the broker
forgets to check, or somebody did past it, shows here. Input is what Vault stores, raw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

__all__ = ["Leased", "faults_of", "leases_in"]

Entry = Mapping[str, Any]
Document = Mapping[str, Any]

_GENESIS: Final = "0" * 64
_MOVES: Final = {  # move: (where it starts, where it ends, where what was current goes)
    "promote": ({"candidate", "previous"}, "current", "previous"),
    "roll_back": ({"previous", "candidate"}, "current", "previous"),
    "reject": ({"candidate"}, "rejected", None),
    "retire": ({"previous", "rejected"}, "retired", None),
}
_TRIES_KEPT: Final = 10
_CERTIFICATE: Final = ("key", "certificate", "issuing")
_PARTS: Final = (*_CERTIFICATE, "trust", "password")


@dataclass(frozen=True, slots=True)
class Leased:
    """A bundle that somebody was given, as the evidence of issuing has it. `ended` is None where nothing ended it."""

    account: str
    generation: int
    place: tuple[str, ...]  # consumer, application, kind: a later bundle there takes the place of this one
    given: datetime
    expires: datetime
    ended: datetime | None


@dataclass(slots=True)
class _Told:
    """What has happened up to an entry."""

    requests: dict[int, str | None] = field(default_factory=dict)
    keys: dict[int, tuple[str, str]] = field(default_factory=dict)  # request: (key, SPKI)
    stages: dict[int, str] = field(default_factory=dict)
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    last: list[int] = field(default_factory=list)  # generations in the order in which they were current or displaced
    proven: dict[int, dict[str, Any]] = field(
        default_factory=dict
    )  # the sets that the partner has accepted since the generation was born, or since it was displaced
    sets: dict[int, dict[str, Any]] = field(default_factory=dict)  # attempt: what was sent
    tries: dict[int, tuple[int, str]] = field(default_factory=dict)  # attempt: (generation, verdict)
    passwords: list[int] = field(default_factory=list)
    cas: dict[str, set[str]] = field(default_factory=lambda: {"trust": set(), "issuing": set()})
    applications: dict[str, str] = field(default_factory=dict)
    opened: Entry | None = None

    @property
    def current(self) -> int:
        return next((number for number, stage in self.stages.items() if stage == "current"), 0)


def faults_of(name: str, document: Document, stored: Sequence[Entry], leases: Sequence[Leased] = ()) -> list[str]:
    """Return what is wrong with account `name`: its chain, what the chain tells, and how the document differs from it.

    `stored` are its entries in the order of their paths; what is in the document's outbox follows them.
    """
    known = {entry["hash"] for entry in stored}
    entries = [*stored, *(entry for entry in document["outbox"] if entry["hash"] not in known)]
    faults = list(_chain_faults(name, entries, document["head"]))
    told = _Told()
    for entry in entries:
        where = f"{name} entry {entry['number']} ({entry['what']})"
        try:
            faults += [f"{where}: {fault}" for fault in _RULES[entry["what"]](told, entry["facts"])]
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{where}: speaks of what is not there ({error})")
        faults += [f"{where}: {fault}" for fault in _taken_away(name, entry, leases)]
    return faults + [f"{name}: {fault}" for fault in _differences(told, document)]


def leases_in(chains: Mapping[str, Sequence[Entry]]) -> list[Leased]:
    """Return every bundle that the chains of issuing processes speak of."""
    entries = [entry for chain in chains.values() for entry in chain]
    returned = {e["facts"]["lease"]: _moment(e["at"]) for e in entries if e["what"] == "bundle-returned"}
    found = []
    for entry in entries:
        facts = entry["facts"]
        if entry["what"] == "bundle-issued":
            place = (facts["consumer"], facts["application"], facts["kind"])
            given, expires, ended = _moment(entry["at"]), _moment(facts["expires"]), returned.get(facts["lease"])
            found.append(Leased(facts["account"], facts["generation"], place, given, expires, ended))
    return found


def _chain_faults(name: str, entries: Sequence[Entry], head: Document) -> Iterator[str]:
    before = _GENESIS
    for place, entry in enumerate(entries, 1):
        content = {key: value for key, value in entry.items() if key != "hash"}
        content["at"] = _moment(entry["at"]).isoformat()
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        if entry["number"] != place or entry["chain"] != f"accounts/{name}":
            yield f"{name}: entry {place} is missing, or not where it belongs"
        if entry["before"] != before or hashlib.sha256(text.encode()).hexdigest() != entry["hash"]:
            yield f"{name}: entry {entry['number']} does not follow the one before, or was edited"
        before = entry["hash"]
    if (head["number"], head["hash"]) != (len(entries), before):
        yield f"{name}: its document stands at entry {head['number']}, its evidence at {len(entries)}"


def _opened(told: _Told, facts: Document) -> Iterator[str]:
    if told.opened is not None:
        yield "opened twice"
    told.opened = facts


def _application(told: _Told, facts: Document) -> Iterator[str]:
    told.applications[facts["application"]] = facts["client_id"]
    return iter(())


def _application_gone(told: _Told, facts: Document) -> Iterator[str]:
    del told.applications[facts["application"]]
    return iter(())


def _password(told: _Told, facts: Document) -> Iterator[str]:
    if told.passwords and facts["password"] <= told.passwords[-1]:
        yield "the number of the password does not rise"
    told.passwords.append(facts["password"])


def _ca(kind: str, told: _Told, facts: Document) -> Iterator[str]:
    told.cas[kind].add(facts[kind])
    return iter(())


def _drafted(told: _Told, facts: Document) -> Iterator[str]:
    number = facts["request"]
    if None in told.requests.values():
        yield "a second open request"
    if number != max(told.requests, default=0) + 1 or (facts["key"], facts["spki"]) in told.keys.values():
        yield "its number or its key was there before"
    told.requests[number], told.keys[number] = None, (facts["key"], facts["spki"])


def _submitted(told: _Told, facts: Document) -> Iterator[str]:
    if told.requests[facts["request"]] is not None:
        yield "the request was closed"


def _closed(told: _Told, facts: Document) -> Iterator[str]:
    if told.requests[facts["request"]] is not None:
        yield "the request was closed before"
    told.requests[facts["request"]] = facts["closed"]


def _born(told: _Told, facts: Document) -> Iterator[str]:
    number, parts = facts["generation"], _named(facts)
    if number != max(told.stages, default=0) + 1:
        yield "its number is wrong"
    if not told.current and set(parts) < set(_PARTS):
        yield "it is no whole set, and nothing is current to lay it over"
    answered = {key for request, (key, _) in told.keys.items() if told.requests[request] == "answered"}
    if "key" in parts and parts["key"] not in answered:
        yield f"nobody answered a request for its key {facts['key']}"
    if "password" in parts and parts["password"] not in told.passwords:
        yield f"password {facts['password']} was never set"
    for kind in ("trust", "issuing"):
        if kind in parts and parts[kind] not in told.cas[kind]:
            yield f"nobody accepted its {kind} CA"
    told.stages[number], told.parts[number] = "candidate", parts


def _sent(told: _Told, facts: Document) -> Iterator[str]:
    if facts["attempt"] != max(told.tries, default=0) + 1:
        yield "the attempts are not counted one by one"
    if told.stages[facts["generation"]] == "retired":
        yield "the generation was retired"
    if _named(facts) != _laid_over(told, facts["generation"]):
        yield "what was sent is not what the generation would be"
    told.tries[facts["attempt"]] = (facts["generation"], "")
    told.sets[facts["attempt"]] = _named(facts)


def _answered(told: _Told, facts: Document) -> Iterator[str]:
    generation, verdict = told.tries[facts["attempt"]]
    if generation != facts["generation"] or verdict:
        yield "this canary was not sent, or was answered before"
    told.tries[facts["attempt"]] = (facts["generation"], facts["verdict"])
    if facts["verdict"] == "ok":
        told.proven[facts["generation"]] = told.sets[facts["attempt"]]


def _moved(told: _Told, facts: Document) -> Iterator[str]:
    number, move, current = facts["generation"], facts["move"], told.current
    starts, end, displaced = _MOVES[move]
    if told.stages[number] not in starts or facts["stage"] != end:
        yield f"{move} of generation {number}, which was {told.stages[number]}"
    if (facts.get("displaced", 0), facts.get("displaced_stage")) != (
        (current, displaced) if displaced and current else (0, None)
    ):
        yield f"it names another as displaced than generation {current}, which was current"
    if end == "current":
        yield from _unproven(told, facts)
        told.parts[number] = _named(facts)
        told.last = [n for n in told.last if n not in (number, current)]
        told.last += [number, current] if move == "roll_back" else [current, number]
    if displaced and current:
        told.stages[current] = displaced
        told.proven.pop(current, None)  # what comes back is tried again
    told.stages[number] = end


def _unproven(told: _Told, facts: Document) -> Iterator[str]:
    number, current, move = facts["generation"], told.current, facts["move"]
    candidate, whole = told.stages[number] == "candidate", _named(facts)
    if told.proven.get(number) != whole and (move == "promote" or not facts.get("reason")):
        yield f"no canary of generation {number} was answered ok before it became current"
    if candidate and whole != _laid_over(told, number):
        yield f"generation {number} became current with other parts than it changes"
    if candidate and move == "roll_back" and not _comes_back(told, number):
        yield f"generation {number} brings nothing back, so there is no going back to it"
    if not candidate and whole != told.parts[number]:
        yield f"generation {number} came back with other parts"
    if not candidate and any(whole[part] != told.parts[current][part] for part in ("password", "trust")):
        yield f"generation {number} brings back an older password or trust"
    if not candidate and (told.last.index(number) > told.last.index(current)) is not (move == "promote"):
        yield f"{move} of generation {number} is the wrong way"


def _named(facts: Document) -> dict[str, Any]:
    """Return the parts that `facts` names; a secret that is not the password stands there as "secret:NAME"."""
    return {part: value for part, value in facts.items() if value and (part in _PARTS or part.startswith("secret:"))}


def _laid_over(told: _Told, number: int) -> dict[str, Any]:
    base = told.parts[told.current] if told.current and told.stages[number] == "candidate" else {}
    return {**base, **told.parts[number]}


def _comes_back(told: _Told, number: int) -> bool:
    ref = told.parts[number].get("certificate")
    return any(
        told.parts[other].get("certificate") == ref and stage in ("current", "previous")
        for other, stage in told.stages.items()
    )


def _nothing(_: _Told, __: Document) -> Iterator[str]:
    return iter(())


_RULES: Final[Mapping[str, Any]] = {
    "account-added": _opened,
    "account-set": _nothing,
    "application-set": _application,
    "application-removed": _application_gone,
    "password-set": _password,
    "secret-set": _nothing,
    "trust-set": lambda told, facts: _ca("trust", told, facts),
    "ca-accepted": lambda told, facts: _ca("issuing", told, facts),
    "request-drafted": _drafted,
    "request-submitted": _submitted,
    "request-closed": _closed,
    "generation-born": _born,
    "generation-moved": _moved,
    "canary-sent": _sent,
    "canary-answered": _answered,
    "breaker-reset": _nothing,
}


def _taken_away(name: str, entry: Entry, leases: Sequence[Leased]) -> Iterator[str]:
    """Say whether a generation was retired, without a reason, while somebody held it."""
    facts = entry["facts"]
    if facts.get("move") != "retire" or facts.get("reason"):
        return
    at, ours = _moment(entry["at"]), [lease for lease in leases if lease.account == name]
    for lease in ours:
        replaced = any(lease.given < other.given <= at for other in ours if other.place == lease.place)
        lives = lease.given < at < lease.expires and not (lease.ended and lease.ended <= at)
        if lease.generation == facts["generation"] and lives and not replaced:
            yield f"generation {lease.generation} was retired while {lease.place[0]} held it"


def _differences(told: _Told, document: Document) -> Iterator[str]:
    opened = told.opened or {}
    tries = dict(sorted(told.tries.items())[-_TRIES_KEPT:])
    pairs = {
        "partner and login": (
            tuple(opened.get(field) for field in ("profile", "environment", "login", "base_url")),
            tuple(document[field] for field in ("profile", "environment", "login", "base_url")),
        ),
        "applications": (told.applications, {a["name"]: a["client_id"] for a in document["applications"]}),
        "requests": (told.requests, {r["number"]: r["closed"] for r in document["requests"]}),
        "keys": (told.keys, {r["number"]: (r["key"], r["spki"]) for r in document["requests"]}),
        "stages": (told.stages, {g["number"]: g["stage"] for g in document["generations"]}),
        "parts": (told.parts, {g["number"]: _parts(g["parts"]) for g in document["generations"]}),
        "password": (told.passwords[-1] if told.passwords else 0, document["secrets"].get("password", 0)),
        "tries": (tries, {t["number"]: (t["generation"], _verdict(t)) for t in document["tries"]}),
    }
    for what, (by_evidence, by_document) in pairs.items():
        if by_evidence != by_document:
            yield f"its {what} are {by_evidence} by its evidence, and {by_document} by its document"


def _verdict(attempt: Document) -> str:
    verdict = attempt["verdict"]
    return "" if verdict == "unknown" else str(verdict)  # what a person's reset makes of one that was never answered


def _parts(parts: Document) -> dict[str, Any]:
    secrets = {name if name == "password" else f"secret:{name}": n for name, n in parts["secrets"].items()}
    return _named({**parts, **secrets})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
