"""A small account of a test's own: what two commands can quarrel over, said a second time from the design.

It imports nothing of the broker, so it cannot agree with a mistake that the broker makes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Generation", "Request", "State", "state_of"]


@dataclass(frozen=True, slots=True)
class Request:
    number: int
    status: str = "open"
    sent: frozenset[str] = frozenset()  # references of its submissions


@dataclass(frozen=True, slots=True)
class Generation:
    number: int
    key: int
    password: int
    stage: str = "candidate"
    base: int = 0
    restores: int = 0
    replaces: int = 0
    held: bool = False
    since: int = 0  # an ordinal

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
    moves: int = 0

    @property
    def open(self) -> Request | None:
        return next((r for r in self.requests if r.status == "open"), None)

    @property
    def current(self) -> Generation | None:
        return next((g for g in self.generations if g.stage == "current"), None)

    @property
    def visible(self) -> tuple[object, ...]:
        """What a document shows, so that two states can be held against each other."""
        generations = tuple(replace(g, since=0) for g in self.generations)
        return (self.requests, generations, self.applications, self.password, self.breaker, self.flying)

    def request(self, number: int) -> Request:
        return self.requests[number - 1]

    def generation(self, number: int) -> Generation:
        return self.generations[number - 1]

    def candidates(self) -> list[Generation]:
        return [g for g in self.generations if g.stage == "candidate"]

    def with_request(self, changed: Request) -> State:
        return replace(self, requests=_placed(self.requests, changed))

    def with_application(self, name: str, client_id: str) -> State:
        kept = frozenset(a for a in self.applications if a[0] != name)
        return replace(self, applications=kept | {(name, client_id)})

    def client_id(self, name: str) -> str | None:
        return dict(self.applications).get(name)

    def staged(self, number: int, stage: str, *, displaced: str = "") -> State:
        """Move a generation, and the current one out of its way."""
        after = replace(self, moves=self.moves + 1)
        if displaced and self.current:
            held = displaced == "candidate"
            after = after._put(replace(self.current, stage=displaced, since=after.moves, held=held))
        return after._put(replace(self.generation(number), stage=stage, since=after.moves, held=False))

    def born(self, key: int, password: int, *, restores: int = 0, instead_of: Generation | None = None) -> State:
        after = replace(self, moves=self.moves + 1)
        base = self.current.number if self.current else 0
        replaces, held = (instead_of.number, instead_of.held) if instead_of else (0, False)
        number = len(self.generations) + 1
        return after._put(Generation(number, key, password, "candidate", base, restores, replaces, held, after.moves))

    def newest_form(self, number: int) -> Generation:
        following = next((g for g in self.generations if g.replaces == number), None)
        return self.newest_form(following.number) if following else self.generation(number)

    def _put(self, generation: Generation) -> State:
        return replace(self, generations=_placed(self.generations, generation))


def _placed(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    return (*items[: item.number - 1], item, *items[item.number :])


def state_of(document: Mapping[str, Any], *, good: Collection[int] = (), taken: int = 0) -> State:
    """Return the state that an account's document shows, as Vault keeps it."""
    value = document["value"]
    times = sorted({g["since"] for g in value["generations"]})
    generations = tuple(
        Generation(
            g["number"],
            int(g["parts"]["key"].partition(":")[2]),
            g["parts"]["password"],
            g["stage"],
            g["base"],
            g["restores"],
            g["replaces"],
            g["held"],
            times.index(g["since"]) + 1,
        )
        for g in value["generations"]
    )
    requests = tuple(
        Request(r["number"], r["closed"] or "open", frozenset(s["reference"] for s in r["submissions"]))
        for r in value["requests"]
    )
    return State(
        requests,
        generations,
        frozenset((a["name"], a["client_id"]) for a in value["applications"]),
        value["password"] or 0,
        breaker=value["breaker"] is not None,
        taken=taken or value["password"] or 0,
        good=frozenset(good),
        flying=any(not t["verdict"] for t in value["tries"]),
        moves=len(times),
    )
