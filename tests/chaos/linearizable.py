"""Could commands that overlapped have run in some order? A search over histories, for any model of what they do.

It imports nothing of the broker. A command is one step or a few (a canary is away between its two steps), and the
steps of different commands may alternate; each is taken whole, between the command's start and its end, and must fit
what the command said of itself. The search is Wing and Gong's (1993), with the memory of configurations that Lowe
added (2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

__all__ = ["DONE", "START", "Model", "Operation", "Phase", "Search"]

Phase = tuple[Any, ...]  # how far a command has come, and what it remembers
START: Final[Phase] = ("start",)
DONE: Final[Phase] = ("done",)


class Visible(Protocol):
    """A state: a hashable value. `visible` is what can be compared with what is stored."""

    @property
    def visible(self) -> object: ...


S = TypeVar("S", bound=Visible)


@dataclass(frozen=True, slots=True)
class Operation:
    """A command as seen from outside. `number` is what it said it came to; `said` is all it said."""

    name: str
    start: int
    end: int
    code: int = 0
    number: int = 0
    said: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def failed(self, code: int, *words: str) -> bool:
        """Whether it ended with `code` and named each of `words`."""
        return self.code == code and all(word in self.said for word in words)

    def came_to(self, number: int) -> bool:
        """Whether it succeeded and named `number`."""
        return self.code == 0 and self.number == number


Model = Mapping[str, Callable[[Operation, S, Phase], Iterator[tuple[S, Phase]]]]


@dataclass
class Search(Generic[S]):
    """The search for an order. `order` names the steps of the one that was found, None where there is none."""

    model: Model[S]
    operations: Sequence[Operation]
    before: S
    after: S | None  # None: however it ended
    order: list[str] | None = None
    seen: set[tuple[S, tuple[Phase, ...]]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._farthest: tuple[list[str], S, list[int]] = ([], self.before, list(range(len(self.operations))))
        self._run()

    @property
    def linearizable(self) -> bool:
        """Whether some order explains all."""
        return self.order is not None

    @property
    def report(self) -> str:
        """Say how far the longest explanation got, and what it could not explain."""
        steps, state, left = self._farthest
        unexplained = [_told(self.operations[i]) for i in left] or ["nothing but what was stored in the end"]
        lines = [f"explained: {', '.join(steps) or 'nothing'}", f"then: {state}", "unexplained:", *unexplained]
        return "\n".join([*lines, f"stored in the end: {self.after}", f"{len(self.seen)} configurations"])

    def _run(self) -> None:
        stack: list[tuple[S, tuple[Phase, ...], list[str]]] = [(self.before, (START,) * len(self.operations), [])]
        while stack and self.order is None:
            state, phases, steps = stack.pop()
            if (state, phases) in self.seen:
                continue
            self.seen.add((state, phases))
            left = [i for i, phase in enumerate(phases) if phase != DONE]
            if not left and (self.after is None or state.visible == self.after.visible):
                self.order = steps
            if len(left) < len(self._farthest[2]):
                self._farthest = (steps, state, left)
            for i in self._may_go(left):
                name = self.operations[i].name
                for then, phase in self.model[name](self.operations[i], state, phases[i]):
                    stack.append((then, (*phases[:i], phase, *phases[i + 1 :]), [*steps, f"{name} ({i}) {phase[0]}"]))

    def _may_go(self, left: Sequence[int]) -> list[int]:
        """Those that began before the first of the others ended: whoever ended earlier comes earlier."""
        first_end = min((self.operations[i].end for i in left), default=0)
        return [i for i in left if self.operations[i].start <= first_end]


def _told(operation: Operation) -> str:
    facts = f"{operation.name} {dict(operation.arguments)}: {operation.code}, {operation.number}"
    return f"  [{operation.start}, {operation.end}] {facts}: {operation.said.strip()[:300]!r}"
