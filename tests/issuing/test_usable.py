"""The applications that a caller has a right to: judged, cached for seconds, and no more than that shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from broker.copies import replace
from broker.errors import DeniedError
from broker.issuing.usable import Applications, ByRight, State, Usable, usable
from broker.model.changes.registering import removed, suspended
from broker.model.lease import Caller, Consumer
from broker.model.secret import Secret
from tests.support.accounts import MZP, NOW, STAMP, an_account, with_current
from tests.support.on_loop import run

Rights = tuple[Consumer, frozenset[str]]
Result = TypeVar("Result")
READER, OTHER, STRANGER = (Caller(Secret(name)) for name in ("reader", "other", "stranger"))
RIGHTS = {"reader": {"a", "b", "gone"}, "other": {"b"}, "stranger": set[str]()}


@dataclass
class World:
    """Vault in memory; it counts what it is asked."""

    calls: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    def applications(self) -> Applications:
        return Applications(self, self._read, self._permitted, lambda: NOW)

    async def admit(self, caller: Caller, judge: Callable[[], Awaitable[Rights]]) -> Rights:
        self.calls.append("admit")
        return await judge()

    def take(self, consumer: Consumer) -> None:
        self.taken.append(consumer.name)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        return function()

    def _read(self) -> ByRight:
        self.calls.append("read")
        (one,) = (one for _, one in usable([with_current()]) if one.application == "fleet")
        return {right: replace(one, application=right) for right in "abc"}

    def _permitted(self, caller: Caller, rights: Collection[str]) -> tuple[Consumer, frozenset[str]]:
        name = caller.credential.reveal()
        self.calls.append(f"{name} of {len(rights)}")
        if name not in RIGHTS:
            raise DeniedError("unknown")
        return Consumer(f"entity-{name}", name), frozenset(RIGHTS[name])


def test_each_caller_sees_its_own() -> None:
    async def test() -> None:
        world = World()
        applications = world.applications()
        for _ in range(3):
            assert [one.application for one in await applications.of(READER)] == ["a", "b"]
            assert [one.application for one in await applications.of(OTHER)] == ["b"]
            with pytest.raises(DeniedError):
                await applications.of(STRANGER)
        readers = ["admit", "reader of 0", "read", "reader of 3"]
        assert world.calls == [*readers, "admit", "other of 0", "other of 3", "admit", "stranger of 0", "stranger of 3"]

    run(test)


def test_nothing_is_read_for_a_stranger() -> None:
    async def test() -> None:
        world = World()
        applications = world.applications()
        with pytest.raises(DeniedError):
            await applications.of(Caller(Secret("nobody")))
        assert world.calls == ["admit", "nobody of 0"]

    run(test)


def test_each_list_counts_as_a_request() -> None:
    """From memory too."""

    async def test() -> None:
        world = World()
        applications = world.applications()
        for _ in range(3):
            await applications.of(READER)
        assert world.taken == ["reader"] * 3

    run(test)


def test_the_state_follows_from_the_account() -> None:
    account = with_current()
    end = next(one for _, one in usable([account])).not_after
    assert end

    def states(changed: Any, now: Any = NOW) -> set[State]:
        return {one.state(now) for _, one in usable([changed])}

    assert states(account) == {State.READY}
    assert states(account, end) == {State.EXPIRED}
    assert states(account, end - timedelta(seconds=1)) == {State.READY}
    assert states(suspended(account, "stolen", STAMP)) == {State.SUSPENDED}
    assert states(an_account()) <= {State.PENDING}
    assert states(removed(account, "over", STAMP)) == set()


def test_nothing_else_of_an_account_is_shown() -> None:
    assert set(Usable.__struct_fields__) == {"account", "application", "generation", "not_after", "suspended"}
    assert {one.account for _, one in usable([with_current()])} == {MZP}


def test_a_consumer_has_a_right_to_something() -> None:
    async def test() -> None:
        applications = World().applications()
        assert (await applications.consumer(READER)).entity == "entity-reader"
        with pytest.raises(DeniedError):
            await applications.consumer(STRANGER)

    run(test)
