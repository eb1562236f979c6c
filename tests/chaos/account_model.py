"""A small model of an account, written independently from the design: the state that two commands can conflict over.

It imports nothing of the broker, so it cannot agree with a mistake that the broker makes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.copies import replace

__all__ = ["PASSWORD_STEPS", "Generation", "Request", "State", "state_of"]

PASSWORD_STEPS: Final = ("asked", "set", "stored", "tried", "promoted", "dead")


@dataclass(frozen=True, slots=True)
class Request:
    number: int
    status: str = "open"
    sent: frozenset[str] = frozenset()  # references of its submissions
    key: int = 0  # its slot
    known: bool = False  # others know the key
    dead: bool = False  # the partner takes no certificate of that key any more


@dataclass(frozen=True, slots=True)
class Generation:
    """A set, or what a candidate changes of one: a certificate, a password, client_ids; 0 is no change."""

    number: int
    key: int  # the number of the request that its certificate answers
    password: int
    stage: str = "candidate"
    order: int = 0  # of its last move
    ids: frozenset[tuple[str, str]] = frozenset()  # name, client_id: those that differ, or did

    def without(self, name: str) -> Generation:
        return replace(self, ids=frozenset(one for one in self.ids if one[0] != name))

    @property
    def living(self) -> bool:
        return self.stage != "retired"


@dataclass(frozen=True, slots=True)
class State:
    """An account, as far as two commands can quarrel over it."""

    requests: tuple[Request, ...] = ()
    generations: tuple[Generation, ...] = ()
    applications: frozenset[tuple[str, str]] = frozenset()  # name, client_id
    password: int = 0
    breaker: bool = False
    taken: int = 0  # password slots up to here have been written
    good: frozenset[int] = frozenset()  # passwords that the partner accepts
    flying: bool = False  # a canary is on its way
    snoozed: bool = False
    renewal: str = "auto"
    suspended: bool = False
    reuse: bool = False  # the profile allows another certificate for the same key
    rotation: tuple[int, frozenset[str]] | None = None  # of the password: the old one, and the steps that are done
    held: frozenset[int] = frozenset()  # generations that a consumer holds
    lease_key: tuple[int, bool] = (0, False)  # the newest, and whether it is younger than a day

    @property
    def open(self) -> Request | None:
        return next((r for r in self.requests if r.status == "open"), None)

    @property
    def current(self) -> Generation | None:
        return next((g for g in self.generations if g.stage == "current"), None)

    @property
    def visible(self) -> tuple[object, ...]:
        """Return the visible state of a document, to compare two states."""
        generations = tuple(replace(g, order=0) for g in self.generations)
        settings = (self.snoozed, self.renewal, self.suspended, self.rotation, self.held, self.lease_key)
        return (self.requests, generations, self.applications, self.password, self.breaker, self.flying, settings)

    def request(self, number: int) -> Request:
        return self.requests[number - 1]

    def generation(self, number: int) -> Generation:
        return self.generations[number - 1]

    def slot(self, generation: Generation) -> int:
        """Return the slot of a generation's key, 0 if it changes no certificate."""
        return self.request(generation.key).key if generation.key else 0

    def known(self, slot: int) -> bool:
        return any(r.key == slot and r.known for r in self.requests)

    def candidates(self) -> list[Generation]:
        return [g for g in self.generations if g.stage == "candidate"]

    def with_request(self, changed: Request) -> State:
        return replace(self, requests=_placed(self.requests, changed))

    def with_application(self, name: str, client_id: str) -> State:
        kept = frozenset(a for a in self.applications if a[0] != name)
        return replace(self, applications=kept | {(name, client_id)})

    def client_id(self, name: str) -> str | None:
        return dict(self.applications).get(name)

    @property
    def next_order(self) -> int:
        return 1 + max((g.order for g in self.generations), default=0)

    def whole(self, number: int) -> Generation:
        """Return a generation as a whole set: a candidate, or one that was rejected, laid over the current one."""
        generation, current = self.generation(number), self.current
        is_whole = generation.stage != "candidate" and generation.key and generation.password
        if is_whole or current is None:
            return generation
        ids = frozenset({**dict(current.ids), **dict(generation.ids)}.items())
        password = generation.password or current.password
        return replace(generation, key=generation.key or current.key, password=password, ids=ids)

    def brings(self, number: int) -> tuple[int, frozenset[tuple[str, str]]]:
        """Return the key of a generation, and its client_ids that are other than now."""
        generation = self.generation(number)
        return generation.key, frozenset(one for one in generation.ids if self.client_id(one[0]) != one[1])

    def rolled_back(self, generation: Generation) -> bool:
        return bool(generation.stage == "previous" and self.current and generation.order > self.current.order)

    def reuses_certificate(self, candidate: Generation) -> bool:
        return any(g.key == candidate.key for g in self.generations if g.stage in ("current", "previous"))

    def free(self) -> list[Generation]:
        return [c for c in self.candidates() if not self.reuses_certificate(c)]

    def staged(self, number: int, stage: str, *, move: str = "") -> State:
        """Move a generation, and the current one out of its way; `move` says how it becomes current."""
        generation, order, after = self.whole(number) if move else self.generation(number), self.next_order, self
        if move and self.current:
            place = order if move == "promote" else order + 2
            after = after._put(replace(self.current, stage="previous", order=place))
        after = after._put(replace(generation, stage=stage, order=order + 1))
        after = after._given(generation) if move else after
        for overtaken in self._overtaken(self.generation(number), stage, move):
            after = after.staged(overtaken, "rejected")
        return after

    def _given(self, arrived: Generation) -> State:
        """Give the applications the client_ids of what became current; sets before it keep those they had."""
        after = self
        for name, client_id in self.brings(arrived.number)[1]:
            now = (name, self.client_id(name) or "")
            after = after.with_application(name, client_id)
            for other in after.generations:
                if other.stage == "previous" and name not in dict(other.ids):
                    after = after._put(replace(other, ids=other.ids | {now}))
        return after

    def withdrawn(self, name: str) -> State:
        """Reject candidates that change the client_id of `name`; what else they change goes on in new ones."""
        after = self
        for candidate in self.candidates():
            rest = candidate.without(name)
            if rest != candidate:
                after = after.staged(candidate.number, "rejected")
                after = (
                    after.born(rest.key, rest.password, rest.ids) if rest.key or rest.password or rest.ids else after
                )
        return after

    def removed(self, name: str) -> State:
        after = self.withdrawn(name)
        for generation in after.generations:
            if generation.stage in ("current", "previous"):
                after = after._put(generation.without(name))
        return replace(after, applications=frozenset(a for a in after.applications if a[0] != name))

    def _overtaken(self, generation: Generation, stage: str, move: str) -> list[int]:
        others = [c for c in self.candidates() if c.number != generation.number]
        if stage == "retired" and generation.stage == "previous":
            return [c.number for c in others if c.key == generation.key]
        if move != "promote" or generation.stage != "candidate" or self.reuses_certificate(generation):
            return []
        return [
            c.number
            for c in others
            if c.number < generation.number
            and (
                (c.key and generation.key)
                or (c.password and generation.password)
                or dict(c.ids).keys() & dict(generation.ids).keys()
            )
        ]

    def compromised(self) -> State:
        """Note that others know the current key: an open request and candidates with it are over."""
        assert self.current
        slot = self.slot(self.current)
        if self.known(slot):
            return self
        after = replace(self, requests=tuple(replace(r, known=r.known or r.key == slot) for r in self.requests))
        if after.open and after.open.key == slot:
            after = after.with_request(replace(after.open, status="superseded"))
        for candidate in self.candidates():
            if self.slot(candidate) == slot:
                after = after.staged(candidate.number, "rejected")
        return after

    def noted(self, step: str, password: int) -> State:
        """Note a step of the password rotation; another password is not tried yet, if none is promoted."""
        if self.rotation is None or password <= self.rotation[0]:
            return self
        old, done = self.rotation
        again = step == "stored" and "promoted" not in done
        return replace(self, rotation=(old, (done - set(PASSWORD_STEPS[2:4]) if again else done) | {step}))

    def born(self, key: int, password: int, ids: frozenset[tuple[str, str]] = frozenset()) -> State:
        number = len(self.generations) + 1
        return self._put(Generation(number, key, password, "candidate", self.next_order, ids))

    def _put(self, generation: Generation) -> State:
        return replace(self, generations=_placed(self.generations, generation))


def _placed(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    return (*items[: item.number - 1], item, *items[item.number :])


def state_of(
    document: Mapping[str, Any],
    *,
    good: Collection[int] = (),
    taken: int = 0,
    held: Collection[int] = (),
    lease_key: tuple[int, bool] = (0, False),
) -> State:
    """Return the state that an account's document shows, as Vault keeps it."""
    value = document["value"]
    requests = tuple(
        Request(
            r["number"],
            r["closed"] or "open",
            frozenset(s["reference"] for s in r["submissions"]),
            _slot(r["key"]),
            r["compromised"] is not None,
            r["revoked_at"] is not None,
        )
        for r in value["requests"]
    )
    rotation = value["password_rotation"]
    return State(
        requests,
        tuple(_generations(value["generations"], [r.number for r in requests if r.status == "answered"])),
        frozenset((a["name"], a["client_id"]) for a in value["applications"]),
        value["secrets"].get("password", 0),
        breaker=value["breaker"] is not None,
        taken=taken or value["secrets"].get("password", 0),
        good=frozenset(good),
        flying=any(not t["verdict"] for t in value["tries"]),
        snoozed=value["snoozed"] is not None,
        renewal=value["renewal"],
        suspended=value["suspended"] is not None,
        reuse=value["profile"] == "own",
        rotation=rotation and (rotation["old"], frozenset(s["step"] for s in rotation["steps"])),
        held=frozenset(held),
        lease_key=lease_key,
    )


def _generations(stored: Collection[Mapping[str, Any]], answered: Collection[int]) -> Iterator[Generation]:
    """Yield generations; as one request is open at a time, certificates came in the order of those answered."""
    certificates = dict(zip(dict.fromkeys(_certificate(g) for g in stored if _certificate(g)), answered, strict=True))
    for g in stored:
        password = g["parts"]["secrets"].get("password", 0)
        ids = frozenset(g["parts"]["client_ids"].items())
        yield Generation(g["number"], certificates.get(_certificate(g), 0), password, g["stage"], g["order"], ids)


def _certificate(generation: Mapping[str, Any]) -> str:
    return str(generation["parts"]["certificate"])


def _slot(key: str) -> int:
    return int(key.partition(":")[2] or 0)
