"""Ages of what is in memory: by every order of writers and readers, none is taken to be newer than it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest

from broker.issuing import announced as module
from broker.issuing.announced import SETTLED, Announced
from broker.model.recent_changes import KEPT, RecentChanges

PATH = "accounts/acme"


@dataclass
class World:
    """A document, the change document, and a reader of both. Each step takes a second."""

    now: float = 0.0
    recent: RecentChanges = field(default_factory=RecentChanges)
    version: int = 1
    replaced: dict[int, float] = field(default_factory=dict)  # by version: when it was replaced
    read: tuple[int, float] | None = None  # the version in memory, and when its reading began

    def __post_init__(self) -> None:
        self.announced = Announced(lambda: self.now)

    def write(self) -> Iterator[None]:
        """A writer; another one may be faster, and each may die after any step."""
        for _ in range(3):
            seen = self.version
            yield
            self.recent = self.recent.announced(PATH, seen)
            yield
            written = self.version == seen
            if written:
                self.replaced[seen], self.version = self.now, seen + 1
            yield
            self.recent = self.recent.done(PATH, seen)
            if written:
                return

    def others(self) -> Iterator[None]:
        """Other documents change, now and then more than a reader can follow."""
        for changes in (1, KEPT + 1, 1):
            yield
            for number in range(changes):
                self.recent = self.recent.announced(f"accounts/{number}", 1).done(f"accounts/{number}", 1)

    def hear(self) -> Iterator[None]:
        """The reader reads the change document."""
        for _ in range(4):
            yield
            began = self.now
            yield
            found = self.recent
            yield
            self.announced.take(found, began)

    def load(self) -> Iterator[None]:
        """The reader reads the document."""
        for _ in range(2):
            yield
            began = self.now
            yield
            found = self.version
            yield
            self.read = found, began

    def assert_strict(self) -> None:
        if self.read:
            version, at = self.read
            assert self.announced.as_of(PATH, at) < self.replaced.get(version, float("inf"))


@pytest.fixture
def no_standbys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever behind: the rule alone must hold."""
    monkeypatch.setattr(module, "SETTLED", 0.0)


def confirmed(world: World) -> bool:
    return world.read is not None and world.announced.as_of(PATH, world.read[1]) > world.read[1]


@pytest.mark.slow
def test_no_order_of_steps_makes_it_too_new(no_standbys: None) -> None:
    useful = 0
    for seed in range(3_000):
        world, chosen = World(), random.Random(seed)
        parts = [world.write(), world.write(), world.others(), world.hear(), world.load()]
        part = parts[0]
        dying = {chosen.randrange(30) for _ in range(chosen.randrange(3))}
        for step in count():
            if not parts:
                break
            if part not in parts or chosen.random() < 0.5:  # bursts reach more orders
                part = chosen.choice(parts)
            world.now += 1
            if next(part, part) is part or (step in dying and part.__name__ == "write"):  # type: ignore[attr-defined]
                parts.remove(part)
            world.assert_strict()
            useful += confirmed(world)
    assert useful > 500


def a_reader(*documents: RecentChanges) -> Callable[[float], float]:
    """Return `as_of` of a reader that read these at 10, 20, … and that is 5 s past the last."""
    now = 0.0
    made = Announced(lambda: now)
    for number, document in enumerate(documents, 1):
        now = 10.0 * number
        made.take(document, now)
    now += 5
    return lambda at: made.as_of(PATH, at)


SOME = RecentChanges().done("accounts/other", 1)


def test_what_nobody_announced_is_as_new_as_that() -> None:
    assert a_reader(SOME, SOME, SOME.done("accounts/other", 2))(15.0) == 30


@pytest.mark.parametrize(
    "documents",
    [
        (),
        (SOME, SOME.announced(PATH, 1)),
        (SOME, SOME.announced(PATH, 1).done(PATH, 1)),
        (SOME, SOME.announced(PATH, 2).done(PATH, 1)),
        (SOME.done("a", 1), SOME),
        (SOME, RecentChanges(KEPT + 2, SOME.paths * KEPT)),
    ],
    ids=["never read", "announced", "changed", "announced again", "went back", "missed too much"],
)
def test_may_have_changed_is_as_old_as_read(documents: tuple[RecentChanges, ...]) -> None:
    assert a_reader(*documents)(15.0) == 15


def test_a_standby_may_show_what_was_before() -> None:
    as_of = a_reader(SOME, SOME.done(PATH, 1), SOME.done(PATH, 1))
    assert as_of(20 + SETTLED) == 20 + SETTLED
    assert as_of(21 + SETTLED) == 30


def test_everything_is_read_again_after_a_minute() -> None:
    """Somebody may have written it without the broker."""
    as_of = a_reader(*[SOME] * 8)
    assert (as_of(26.0), as_of(25.0)) == (80, 25)


def test_a_faster_writer_hides_no_slower_one(no_standbys: None) -> None:
    """The second has announced its change when the first notes its own."""
    world = World()
    parts = {"h": world.hear(), "r": world.load(), "a": world.write(), "b": world.write()}
    for name in "hhhh" + "aaa" + "bb" + "a" + "hhh" + "rrrr" + "b" + "hhh":
        world.now += 1
        next(parts[name], None)
        world.assert_strict()
    assert world.version == 3
