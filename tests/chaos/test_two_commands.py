"""Two of everything: concurrent processes against the real vault and partner.

Some order of theirs must explain their results, and nothing may be doubled, lost or orphaned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tests.chaos.race_histories import Act, Arena, arena
from tests.support.depth import sampled
from tests.support.system import PASSWORD

__all__ = ["arena"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
ROUNDS: Final = 8


def act(name: str, **arguments: object) -> Act:
    return Act(name, arguments)


NEW = act("csr new")
SUPERSEDE = act("csr new", supersede=True)
CANCEL = act("csr cancel")
NO = act("csr refused")
SET = act("password set", password=PASSWORD, good=True)
CHANGE = act("password rotate")
KNOWN = act("csr new", compromised="suspend")
AGAIN = act("csr new", **{"reuse-key": True})
RETIRE = act("rotation retire", generation=1, forced=True)
REVOKE = act("lease revoke", generation=1)


def imported(arena: Arena, request: int) -> Act:
    first = [*arena.system.accepting(), "--client-id-for", "reporting"] if request == 1 else []
    return act("cert import", request=request, accepting=first)


def promote(generation: int = 0) -> Act:
    return act("rotation promote", generation=generation)


def rollback(generation: int = 0, *, forced: bool = False) -> Act:
    return act("rotation rollback", generation=generation, forced=forced)


def submit(reference: str) -> Act:
    return act("csr submit", reference=reference)


PAIRS: dict[str, tuple[str, Callable[[Arena], Sequence[Act]]]] = {
    "two csr new": ("added", lambda _: [NEW, NEW]),
    "ten csr new": ("added", lambda _: [NEW] * 10),
    "csr new, new, cancel": ("added", lambda _: [NEW, NEW, CANCEL]),
    "import against cancel": ("again", lambda a: [imported(a, 2), CANCEL]),
    "import against both ways to close": ("again", lambda a: [imported(a, 2), CANCEL, NO]),
    "two imports of one reply": ("again", lambda a: [imported(a, 2), imported(a, 2)]),
    "two cancels": ("requested", lambda _: [CANCEL, CANCEL]),
    "supersede against import": ("again", lambda a: [SUPERSEDE, imported(a, 2)]),
    "two supersedes": ("requested", lambda _: [SUPERSEDE, SUPERSEDE]),
    "supersede against submit": ("requested", lambda _: [SUPERSEDE, submit("r1"), submit("r2")]),
    "submit against cancel": ("requested", lambda _: [CANCEL, submit("r1")]),
    "two promotes": ("renewed", lambda _: [promote(), promote()]),
    "promote, roll back, password": ("rotated", lambda _: [promote(2), rollback(), SET]),
    "promote against roll back": ("rotated", lambda _: [rollback(), promote(2)]),
    "promote against password": ("renewed", lambda _: [promote(), SET]),
    "roll back against password": ("rotated", lambda _: [rollback(), SET]),
    "two roll backs": ("rotated", lambda _: [rollback(1, forced=True), rollback(1)]),
    "retire against roll back": ("rotated", lambda _: [RETIRE, rollback(1)]),
    "two retires": ("rotated", lambda _: [RETIRE, RETIRE]),
    "reject against promote": ("renewed", lambda _: [act("rotation reject", generation=2), promote(2)]),
    "two compromised": ("renewed", lambda _: [KNOWN, KNOWN]),
    "compromised against import": ("again", lambda a: [KNOWN, imported(a, 2)]),
    "compromised against promote": ("renewed", lambda _: [KNOWN, promote()]),
    "compromised against roll back": ("rotated", lambda _: [KNOWN, rollback()]),
    "compromised against the same key": ("reusable", lambda _: [KNOWN, AGAIN, AGAIN]),
    "the same key against a new one": ("reusable", lambda _: [AGAIN, NEW, CANCEL]),
    "revoked against roll back": (
        "replaced",
        lambda _: [act("rotation revoked", generation=1), rollback(forced=True), act("rotation revoked", generation=1)],
    ),
    "password rotation against password": ("promoted", lambda _: [CHANGE, SET, CHANGE, promote()]),
    "a step against the end of them": (
        "changed",
        lambda _: [act("password rotate", done="dead"), act("password rotate", abort=True), SET],
    ),
    "retire against leases": ("overlapping", lambda _: [act("rotation retire", generation=1), REVOKE, REVOKE]),
    "keys of leases": ("overlapping", lambda _: [act("lease key", again=n < 2) for n in range(4)]),
    "two passwords": ("promoted", lambda _: [SET, act("password set", password="another one")]),
    "canary against canary": ("promoted", lambda _: [act("rotation canary", generation=1)] * 4),
    "two app set": (
        "added",
        lambda _: [act("app set", application="reporting", client_id=f"id-{n}") for n in range(2)],
    ),
    "two app add": ("added", lambda _: [act("app add", application="tours", client_id=f"id-{n}") for n in range(2)]),
    "app set against remove": (
        "added",
        lambda _: [act("app set", application="reporting", client_id="x"), act("app remove", application="reporting")],
    ),
    "ten writers of evidence": ("added", lambda _: [act("app add", application=f"t{n}") for n in range(10)]),
}


def play(arena: Arena, pair: str, seed: int) -> None:
    state, acts = PAIRS[pair]
    race = arena.begun(state)
    arena.race(race, *acts(arena), seed=seed, slowness=(0.0, 0.02)[seed % 2])
    try:
        arena.judged(race)
    except AssertionError as error:
        raise AssertionError(f"replay with CHAOS_SEED={seed}\n{error}") from None


@pytest.mark.parametrize("pair", sampled(PAIRS, every=4))
def test_two_concurrent_are_as_sequential(arena: Arena, pair: str) -> None:
    play(arena, pair, SEED)


@pytest.mark.deep
@pytest.mark.parametrize("pair", PAIRS)
def test_two_slowed_down_are_explained(arena: Arena, pair: str) -> None:
    play(arena, pair, SEED + 1)


@pytest.mark.chaos
@pytest.mark.parametrize("pair", PAIRS)
def test_two_at_once_again_and_again(arena: Arena, pair: str) -> None:
    for seed in range(SEED, SEED + ROUNDS):  # from the first, so that a failure names the seed that repeats it
        play(arena, pair, seed)
