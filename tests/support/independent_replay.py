"""Replay an account from its evidence alone, by independent rules, and compare it with the document.

Part of the auditor: it shares no line with the broker, only the written rules (DESIGN.md), so that what the broker
forgets to check, or a program did past it, shows here. Input is what Vault stores, raw.
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
_NAMED: Final = ("secret:", "client_id:")  # before the name of a part


@dataclass(frozen=True, slots=True)
class Leased:
    """An issued bundle, as the evidence of issuing has it. `ended` is None if nothing ended it."""

    account: str
    generation: int
    place: tuple[str, ...]  # consumer, application, kind: a later bundle there takes the place of this one
    given: datetime
    expires: datetime
    ended: datetime | None


@dataclass(slots=True)
class _Replay:
    """State of an account up to an entry."""

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
    copies: dict[int, list[str]] = field(default_factory=dict)  # request: who has its key outside
    imported: set[int] = field(default_factory=set)
    known: dict[str, bool] = field(default_factory=dict)  # keys that others know: whether their end is confirmed
    rotation: list[str] = field(default_factory=list)  # steps of the password rotation that people confirmed
    rotated: int = 0  # the password that it replaces
    opened: Entry | None = None
    subject: str = ""
    snoozed: str = ""  # until when
    stopped: dict[str, bool] = field(default_factory=lambda: {"suspended": False, "removed": False})

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
    replay = _Replay()
    for entry in entries:
        where = f"{name} entry {entry['number']} ({entry['what']})"
        try:
            faults += [f"{where}: {fault}" for fault in _RULES[entry["what"]](replay, entry["facts"])]
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{where}: speaks of what is not there ({error})")
        faults += [f"{where}: {fault}" for fault in _taken_away(name, entry, leases)]
    return faults + [f"{name}: {fault}" for fault in _differences(replay, document)]


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


def _opened(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.opened is not None:
        yield "opened twice"
    replay.opened, replay.subject = facts, facts["subject"]


def _subject(replay: _Replay, facts: Document) -> Iterator[str]:
    replay.subject = facts["subject"]
    return iter(())


def _stopped(replay: _Replay, how: str, so: bool) -> Iterator[str]:
    if replay.stopped["removed"] or replay.stopped[how] is so:
        yield f"it was {how} before, or removed"
    replay.stopped[how] = so


def _snoozed(replay: _Replay, facts: Document) -> Iterator[str]:
    replay.snoozed = facts.get("until", "")
    return iter(())


def _application(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.current and replay.applications.get(facts["application"]) not in (None, "", facts["client_id"]):
        yield "it replaces a client_id that consumers were given"
    replay.applications[facts["application"]] = facts["client_id"]


def _application_gone(replay: _Replay, facts: Document) -> Iterator[str]:
    del replay.applications[facts["application"]]
    for number, stage in replay.stages.items():
        if stage in ("current", "previous"):
            replay.parts[number].pop(f"client_id:{facts['application']}", None)
    return iter(())


def _password(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.passwords and facts["password"] <= replay.passwords[-1]:
        yield "the number of the password does not rise"
    replay.passwords.append(facts["password"])


def _password_rotation(replay: _Replay, facts: Document) -> Iterator[str]:
    order = ["begun", "asked", "set", "dead"]
    step, before = facts["step"], replay.rotation
    if step == "aborted" and not (before and facts["reason"]):
        yield "nothing was under way, or it has no reason"
    if step != "aborted" and [*before, step] != order[: len(before) + 1]:
        yield f"the step {step} does not follow {before}"
    if step == "dead" and replay.parts[replay.current]["password"] <= replay.rotated:
        yield "no newer password is current"
    replay.rotated = facts.get("old", replay.rotated)
    replay.rotation = [] if step in ("dead", "aborted") else [*before, step]


def _ca(kind: str, replay: _Replay, facts: Document) -> Iterator[str]:
    replay.cas[kind].add(facts[kind])
    return iter(())


def _drafted(replay: _Replay, facts: Document) -> Iterator[str]:
    number = facts["request"]
    if None in replay.requests.values():
        yield "a second open request"
    there = (facts["key"], facts["spki"]) in replay.keys.values()
    if number <= max(replay.requests, default=0) or there is not ("reuses" in facts):
        yield "its number or its key was there before"
    if there and facts["key"] != replay.parts.get(replay.current, {}).get("key"):
        yield "it uses a key again that is not the current one"
    if facts["key"] in replay.known:
        yield "others know its key"
    if "origin" in facts:
        replay.imported.add(number)
    replay.requests[number], replay.keys[number] = None, (facts["key"], facts["spki"])


def _copy_noted(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.keys[facts["request"]][0] != facts["key"]:
        yield "the copy is of another key than the request's"
    replay.copies.setdefault(facts["request"], []).append(facts["holder"])


def _copy_gone(replay: _Replay, facts: Document) -> Iterator[str]:
    replay.copies[facts["request"]].remove(facts["holder"])
    return iter(())


def _compromised(replay: _Replay, facts: Document) -> Iterator[str]:
    if facts["key"] in replay.known or facts["key"] != replay.parts[replay.current]["key"]:
        yield "the key was reported before, or is not the current one"
    if not facts["reason"]:
        yield "it has no reason"
    replay.known[facts["key"]] = False


def _revoked(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.known[facts["key"]] or facts["key"] == replay.parts[replay.current]["key"]:
        yield "its end was confirmed before, or its certificate is current"
    replay.known[facts["key"]] = True


def _submitted(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.requests[facts["request"]] is not None:
        yield "the request was closed"


def _closed(replay: _Replay, facts: Document) -> Iterator[str]:
    if replay.requests[facts["request"]] is not None:
        yield "the request was closed before"
    replay.requests[facts["request"]] = facts["closed"]


def _born(replay: _Replay, facts: Document) -> Iterator[str]:
    number, parts = facts["generation"], _named(facts)
    if number != max(replay.stages, default=0) + 1:
        yield "its number is wrong"
    if not replay.current and set(parts) < set(_PARTS):
        yield "it is no whole set, and nothing is current to lay it over"
    answered = {key for request, (key, _) in replay.keys.items() if replay.requests[request] == "answered"}
    if "key" in parts and parts["key"] not in answered:
        yield f"no answered request has its key {facts['key']}"
    if "password" in parts and parts["password"] not in replay.passwords:
        yield f"password {facts['password']} was never set"
    for kind in ("trust", "issuing"):
        if kind in parts and parts[kind] not in replay.cas[kind]:
            yield f"its {kind} CA was not accepted"
    replay.stages[number], replay.parts[number] = "candidate", parts


def _sent(replay: _Replay, facts: Document) -> Iterator[str]:
    if facts["attempt"] != max(replay.tries, default=0) + 1:
        yield "the attempts are not counted one by one"
    if replay.stages[facts["generation"]] == "retired":
        yield "the generation was retired"
    if _named(facts) != _laid_over(replay, facts["generation"]):
        yield "what was sent is not what the generation would be"
    replay.tries[facts["attempt"]] = (facts["generation"], "")
    replay.sets[facts["attempt"]] = _named(facts)


def _answered(replay: _Replay, facts: Document) -> Iterator[str]:
    generation, verdict = replay.tries[facts["attempt"]]
    if generation != facts["generation"] or verdict:
        yield "this canary was not sent, or was answered before"
    replay.tries[facts["attempt"]] = (facts["generation"], facts["verdict"])
    if facts["verdict"] == "ok":
        replay.proven[facts["generation"]] = replay.sets[facts["attempt"]]


def _moved(replay: _Replay, facts: Document) -> Iterator[str]:
    number, move, current = facts["generation"], facts["move"], replay.current
    starts, end, displaced = _MOVES[move]
    if replay.stages[number] not in starts or facts["stage"] != end:
        yield f"{move} of generation {number}, which was {replay.stages[number]}"
    if (facts.get("displaced", 0), facts.get("displaced_stage")) != (
        (current, displaced) if displaced and current else (0, None)
    ):
        yield f"it names another as displaced than generation {current}, which was current"
    if end == "current":
        yield from _unproven(replay, facts)
        replay.parts[number] = _named(facts)
        replay.last = [n for n in replay.last if n not in (number, current)]
        replay.last += [number, current] if move == "roll_back" else [current, number]
    if displaced and current:
        replay.stages[current] = displaced
        replay.proven.pop(current, None)  # what comes back is tried again
    replay.stages[number] = end
    if end == "current":
        _give(replay, replay.parts[number])


def _give(replay: _Replay, whole: Mapping[str, Any]) -> None:
    """Give the applications the client_ids of the set that became current; sets before it keep what they had."""
    for name, now in replay.applications.items():
        new = whole.get(f"client_id:{name}", now)
        if now and new != now:
            replay.applications[name] = new
            for number, stage in replay.stages.items():
                if stage == "previous":
                    replay.parts[number].setdefault(f"client_id:{name}", now)


def _unproven(replay: _Replay, facts: Document) -> Iterator[str]:
    number, current, move = facts["generation"], replay.current, facts["move"]
    candidate, whole = replay.stages[number] == "candidate", _named(facts)
    if replay.proven.get(number) != whole and (move == "promote" or not facts.get("reason")):
        yield f"no canary of generation {number} was answered ok before it became current"
    if candidate and whole != _laid_over(replay, number):
        yield f"generation {number} became current with other parts than it changes"
    if candidate and move == "roll_back" and not _comes_back(replay, number):
        yield f"generation {number} brings nothing back, so there is no going back to it"
    if not candidate and whole != replay.parts[number]:
        yield f"generation {number} came back with other parts"
    if not candidate and any(whole[part] != replay.parts[current][part] for part in ("password", "trust")):
        yield f"generation {number} brings back an older password or trust"
    if not candidate and (replay.last.index(number) > replay.last.index(current)) is not (move == "promote"):
        yield f"{move} of generation {number} is the wrong way"


def _named(facts: Document) -> dict[str, Any]:
    """Return the parts that `facts` names, among them "secret:NAME" and "client_id:APPLICATION"."""
    return {part: value for part, value in facts.items() if value and (part in _PARTS or part.startswith(_NAMED))}


def _laid_over(replay: _Replay, number: int) -> dict[str, Any]:
    base = replay.parts[replay.current] if replay.current and replay.stages[number] == "candidate" else {}
    return {**base, **replay.parts[number]}


def _comes_back(replay: _Replay, number: int) -> bool:
    ref = replay.parts[number].get("certificate")
    return any(
        replay.parts[other].get("certificate") == ref and stage in ("current", "previous")
        for other, stage in replay.stages.items()
    )


def _nothing(_: _Replay, __: Document) -> Iterator[str]:
    return iter(())


_RULES: Final[Mapping[str, Any]] = {
    "account-added": _opened,
    "account-set": _nothing,
    "renewal-snoozed": _snoozed,
    "snooze-ended": _snoozed,
    "subject-set": _subject,
    "account-suspended": lambda replay, facts: _stopped(replay, "suspended", True),
    "account-resumed": lambda replay, facts: _stopped(replay, "suspended", False),
    "account-removed": lambda replay, facts: _stopped(replay, "removed", True),
    "application-set": _application,
    "application-removed": _application_gone,
    "password-set": _password,
    "secret-set": _nothing,
    "trust-set": lambda replay, facts: _ca("trust", replay, facts),
    "ca-accepted": lambda replay, facts: _ca("issuing", replay, facts),
    "finding-accepted": _nothing,
    "password-rotation": _password_rotation,
    "request-drafted": _drafted,
    "request-submitted": _submitted,
    "request-closed": _closed,
    "generation-born": _born,
    "generation-moved": _moved,
    "canary-sent": _sent,
    "canary-answered": _answered,
    "breaker-reset": _nothing,
    "lease-revoked": _nothing,
    "key-compromised": _compromised,
    "certificate-revoked": _revoked,
    "copy-noted": _copy_noted,
    "copy-gone": _copy_gone,
}


def _taken_away(name: str, entry: Entry, leases: Sequence[Leased]) -> Iterator[str]:
    """Yield a fault if a generation was retired without a reason while it was leased."""
    facts = entry["facts"]
    if facts.get("move") != "retire" or facts.get("reason"):
        return
    at, ours = _moment(entry["at"]), [lease for lease in leases if lease.account == name]
    for lease in ours:
        replaced = any(lease.given < other.given <= at for other in ours if other.place == lease.place)
        lives = lease.given < at < lease.expires and not (lease.ended and lease.ended <= at)
        if lease.generation == facts["generation"] and lives and not replaced:
            yield f"generation {lease.generation} was retired while {lease.place[0]} held it"


def _differences(replay: _Replay, document: Document) -> Iterator[str]:
    opened = replay.opened or {}
    tries = dict(sorted(replay.tries.items())[-_TRIES_KEPT:])
    pairs = {
        "partner and login": (
            tuple(opened.get(field) for field in ("profile", "environment", "login", "base_url")),
            tuple(document[field] for field in ("profile", "environment", "login", "base_url")),
        ),
        "applications": (replay.applications, {a["name"]: a["client_id"] for a in document["applications"]}),
        "requests": (replay.requests, {r["number"]: r["closed"] for r in document["requests"]}),
        "keys": (replay.keys, {r["number"]: (r["key"], r["spki"]) for r in document["requests"]}),
        "imported keys": (replay.imported, {r["number"] for r in document["requests"] if r["imported"]}),
        "compromised keys": (
            replay.known,
            {r["key"]: bool(r["revoked_at"]) for r in document["requests"] if r["compromised"]},
        ),
        "password rotation": (replay.rotation, _confirmed(document["password_rotation"])),
        "copies outside": (
            {number: holders for number, holders in replay.copies.items() if holders},
            {r["number"]: r["held_by"] for r in document["requests"] if r["held_by"]},
        ),
        "stages": (replay.stages, {g["number"]: g["stage"] for g in document["generations"]}),
        "parts": (replay.parts, {g["number"]: _parts(g["parts"]) for g in document["generations"]}),
        "password": (replay.passwords[-1] if replay.passwords else 0, document["secrets"].get("password", 0)),
        "subject": (replay.subject, ", ".join("=".join(pair) for pair in document["subject"]["attributes"])),
        "snoozes": (_moments(replay.snoozed), _moments((document["snoozed"] or {}).get("until", ""))),
        "stops": (replay.stopped, {how: bool(document[how]) for how in replay.stopped}),
        "tries": (tries, {t["number"]: (t["generation"], _verdict(t)) for t in document["tries"]}),
    }
    for what, (by_evidence, by_document) in pairs.items():
        if by_evidence != by_document:
            yield f"its {what} are {by_evidence} by its evidence, and {by_document} by its document"


def _confirmed(rotation: Document | None) -> list[str]:
    if rotation is None:
        return []
    return ["begun", *(one["step"] for one in rotation["steps"] if one["step"] in ("asked", "set"))]


def _verdict(attempt: Document) -> str:
    verdict = attempt["verdict"]
    return "" if verdict == "unknown" else str(verdict)  # what a person's reset makes of one that was never answered


def _parts(parts: Document) -> dict[str, Any]:
    secrets = {name if name == "password" else f"secret:{name}": n for name, n in parts["secrets"].items()}
    return _named({**parts, **secrets, **{f"client_id:{name}": value for name, value in parts["client_ids"].items()}})


def _moments(text: str) -> list[datetime]:
    return [_moment(text)] if text else []


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
