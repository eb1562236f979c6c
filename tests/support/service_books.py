"""Answers that callers of the service got, and whether the books agree: holdings, evidence, what `retire` sees."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from broker.model.names import AccountName
from tests.support.saved_states import ACCOUNT
from tests.support.system import System

__all__ = ["Answer", "asking", "assert_recorded", "held_until", "leases_in_evidence", "timed"]

_HELD: Final = re.compile(r"until (\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ)")
_SECOND: Final = 1.0  # `until` is shown in whole seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and when its request began and ended on the monotonic clock."""

    began: float
    ended: float
    status: int
    body: Any

    @property
    def generation(self) -> int:
        """The generation of a bundle."""
        return int(self.body["generation"])

    @property
    def expires(self) -> float:
        """The end of its lease, in seconds since the epoch."""
        return datetime.fromisoformat(self.body["expires"]).timestamp()


def timed(ask: Callable[[], httpx.Response]) -> Answer:
    """Ask, and note when."""
    began = time.monotonic()
    answer = ask()
    return Answer(began, time.monotonic(), answer.status_code, answer.json() if answer.content else None)


@contextmanager
def asking(*asks: Callable[[], httpx.Response], threads: int = 2) -> Iterator[list[Answer]]:
    """Ask continuously, each of `asks` in some threads, until the block ends; yield what was answered."""
    answers: list[Answer] = []
    over = threading.Event()
    faults: list[BaseException] = []

    def ask_on(ask: Callable[[], httpx.Response]) -> None:
        try:
            while not over.is_set():
                answers.append(timed(ask))
        except BaseException as fault:  # noqa: BLE001  # raised below
            faults.append(fault)

    running = [threading.Thread(target=ask_on, args=(ask,)) for ask in asks for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in running:
            thread.join()
    assert not faults, faults


def held_until(system: System, generation: int) -> dict[str, float]:
    """Return who holds a generation, as `rotation retire` counts it, and until when, in seconds since the epoch."""
    with system.broker() as broker:
        found = broker.stragglers(AccountName(ACCOUNT), generation)
    dates = {text.split(" ")[0]: _HELD.findall(text) for text in found}
    return {name: datetime.fromisoformat(date).timestamp() for name, (date,) in dates.items()}


def leases_in_evidence(system: System) -> dict[str, set[int]]:
    """Return the leases that evidence names, each with its generations; assert that all chains verify."""
    system.ok("evidence", "verify", "--all")
    found: dict[str, set[int]] = {}
    for entry in json.loads(system.ok("evidence", "show", "--all", "-o", "json").out):
        facts = entry["facts"]
        lines = [json.loads(line) for line in facts.get("records", "").splitlines()] or [facts]
        for line in lines:
            if "lease" in line and "generation" in line:
                found.setdefault(line["lease"], set()).add(line["generation"])
    return found


def assert_recorded(system: System, answers: Sequence[Answer], name: str = "reader") -> None:
    """Assert that each bundle is in evidence and held as long as its lease, and that no holding is longer than that.

    `answers` are all bundles of one consumer whose leases were not revoked.
    """
    bundles = [answer for answer in answers if answer.status in (200, 201) and answer.body]
    assert bundles, "nothing was answered"
    evidence = leases_in_evidence(system)
    now = datetime.now(UTC).timestamp()
    for generation in {bundle.generation for bundle in bundles}:
        of_it = [bundle for bundle in bundles if bundle.generation == generation]
        assert all(generation in evidence.get(b.body.get("lease_id"), ()) for b in of_it if "lease_id" in b.body)
        longest = max(bundle.expires for bundle in of_it)
        held = [until for who, until in held_until(system, generation).items() if name in who]
        if longest > now + _SECOND:
            assert held, f"{name} holds generation {generation}, and retire does not see it"
            assert abs(max(held) - longest) <= _SECOND, f"held until {held}, and the last lease ends {longest}"
