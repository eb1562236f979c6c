"""The agent as a whole: isolation, signals, reload, systemd, health."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from broker.agent import following, health, running
from broker.agent.binding import bound_at
from broker.agent.following import Condition, Follower
from broker.agent.health import metrics
from broker.agent.listening import Listener
from broker.agent.probe import probe
from broker.agent.running import Agent, once
from broker.agent.tables import BundleTable
from broker.copies import replace
from broker.errors import DeniedError, InputError
from broker.fetching.service import Service
from broker.model.clock import system_clock
from broker.signals import held_back
from broker.systemd import State
from broker.telemetry import log
from tests.agent.test_following import Broker, link, quick, table
from tests.agent.test_holding import until

__all__ = ["quick"]


class World:
    """An agent in this thread, each of its bundles with a broker of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.brokers: dict[str, Broker] = {}
        self.tables: list[BundleTable] = []
        self.states: list[State] = []
        self.lines: list[str] = []
        self.broken = False
        for name in ("one", "two"):
            self.add(name)
        self.agent = Agent(self._made, self._read, self._report)

    def add(self, name: str) -> None:
        """Add a bundle to the configuration."""
        found = table(self.home / name)
        self.tables.append(replace(found, wanted=replace(found.wanted, application=name)))
        self.brokers[name] = Broker()

    def _made(self, found: BundleTable) -> Follower:
        return Follower(found, cast("Service", self.brokers[found.wanted.application]), (), system_clock)

    def _read(self) -> list[BundleTable]:
        if self.broken:
            raise InputError("it is broken")
        return list(self.tables)

    def _report(self, state: State | str) -> None:
        if isinstance(state, State):
            self.states.append(state)
        else:
            self.lines.append(state)

    @contextmanager
    def acting(self, act: Callable[[], object]) -> Iterator[None]:
        """Do `act` in a thread, then ask this one to end."""

        def acting() -> None:
            try:
                act()
            finally:
                send(signal.SIGTERM)

        actor = threading.Thread(target=acting)
        actor.start()
        yield
        actor.join()

    def run(self, watchdog: float = 0) -> None:
        """Run the agent until it ends."""
        with held_back() as signals:
            self.agent.run(signals, watchdog)

    def ready(self) -> bool:
        return State.READY in self.states

    def condition(self, name: str) -> Condition:
        (found,) = (one for one in self.agent.health.bundles() if one.name == f"mzp-1/{name}")
        return found.condition


def send(number: signal.Signals) -> None:
    main = threading.main_thread().ident
    assert main
    signal.pthread_kill(main, number)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(running, "_LOOK", 0.01)
    return World(tmp_path)


def test_one_that_fails_concerns_no_other(world: World) -> None:
    """A denied one causes no request for another, and the end of both is clean."""
    world.brokers["one"].errors = [DeniedError("no right")] * 100_000

    def act() -> None:
        until(lambda: link(world.home / "two") and world.condition("one") is Condition.DENIED)
        before = len(world.brokers["one"].errors)
        until(lambda: len(world.brokers["one"].errors) < before - 3)
        two = world.brokers["two"]
        assert (len(two.granted), two.renewed, two.waits) == (1, 0, 1)
        until(world.ready)

    with world.acting(act):
        world.run()
    assert not list(world.home.iterdir())


def test_one_that_fails_delays_no_start(world: World) -> None:
    """systemd and probes wait for it some tries long, and say which one it is; if all fail, until one does not."""
    for broker in world.brokers.values():
        broker.errors = [DeniedError("no right")] * 100_000

    def answers() -> list[int]:
        return [(world.agent.health.answer(path) or (0,))[0] for path in ("/startz", "/readyz")]

    def act() -> None:
        until(lambda: all(one.failures > 3 for one in world.agent.health.bundles()))
        assert answers() == [503, 503]
        assert not world.ready()
        world.brokers["two"].errors.clear()
        until(world.ready)
        assert answers() == [200, 503]
        assert world.lines[-1] == "1 of 2 bundles are current; mzp-1/one: denied (no right)"
        text = (world.agent.health.answer("/readyz") or (0, "", ""))[2]
        assert [(one["bundle"], one["ready"], one["message"]) for one in json.loads(text)] == [
            ("mzp-1/one", False, "no right"),
            ("mzp-1/two", True, ""),
        ]

    with world.acting(act):
        world.run()
    assert world.states == [State.READY, State.STOPPING]


def test_systemd_hears_of_it(world: World) -> None:
    def act() -> None:
        until(lambda: State.WATCHDOG in world.states and world.ready())

    with world.acting(act):
        world.run(watchdog=0.02)
    assert world.states[-1] is State.STOPPING


def test_a_reload_touches_what_changed(world: World) -> None:
    def act() -> None:
        until(world.ready)
        world.broken = True
        send(signal.SIGHUP)
        until(lambda: world.states.count(State.READY) == 2)
        world.broken = False
        del world.tables[0]
        world.add("three")
        send(signal.SIGHUP)
        until(lambda: link(world.home / "three") and not (world.home / "one").exists())
        until(lambda: world.states.count(State.READY) == 3)

    with world.acting(act):
        world.run()
    assert [len(world.brokers[name].granted) for name in ("one", "two", "three")] == [1, 1, 1]
    assert world.brokers["one"].returned == ["lease-1"]
    assert world.states.count(State.RELOADING) == 2


def test_it_ends_with_another_process(world: World) -> None:
    other = subprocess.Popen(["sleep", "60"])
    world.agent.quit_after(other.pid)

    def act() -> None:
        until(world.ready)
        other.kill()
        other.wait()

    actor = threading.Thread(target=act)
    actor.start()
    world.run()
    actor.join()
    assert not list(world.home.iterdir())
    with pytest.raises(InputError, match="cannot be watched: no such process"):
        world.agent.quit_after(other.pid)


def test_health_is_that_of_the_bytes(world: World, tmp_path: Path) -> None:
    path = tmp_path / "s"

    def act() -> None:
        until(world.ready)
        for asked in ("/startz", "/readyz", "/livez", "/metrics"):
            assert probe(str(path), asked) == 0
        assert (probe(str(path), "/"), probe(str(path), "/nothing")) == (1, 1)
        (world.home / "one/current/tls.crt").write_text("half")
        assert probe(str(path), "/readyz") == 1
        assert probe(str(path), "/startz") == 1
        assert probe(str(path), "/livez") == 0
        status, _, text = world.agent.health.answer("/readyz") or (0, "", "")
        assert (status, [one["ready"] for one in json.loads(text)]) == (503, [False, True])

    listener = Listener(bound_at(path), world.agent.health, world.agent.quit)
    listener.start()
    with world.acting(act):
        world.run()
    listener.shutdown()
    listener.server_close()


def test_an_expired_certificate_is_not_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        until(world.ready)
        monkeypatch.setattr(health, "system_clock", lambda: system_clock() + timedelta(days=10_000))
        assert [world.agent.health.answer(path)[0] for path in ("/startz", "/readyz", "/livez")] == [200, 503, 200]  # type: ignore[index]
        text = metrics(world.agent.health.bundles())
        assert 'credential_broker_agent_ready{account="mzp-1",application="one"} 0' in text
        assert 'credential_broker_agent_generation{account="mzp-1",application="two"} 1' in text
        assert 'condition="ok"} 1' in text

    with world.acting(act):
        world.run()


def test_a_socket_ends_the_agent(world: World, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound_at(path) as bound:
        assert path.stat().st_mode & 0o777 == 0o600
        listener = Listener(bound, world.agent.health, world.agent.quit)
        listener.start()

        def act() -> None:
            until(world.ready)
            assert probe(str(path), "/quit") == 0

        actor = threading.Thread(target=act)
        actor.start()
        world.run()
        actor.join()
        with pytest.raises(InputError, match="another process listens"):
            bound_at(path)
        listener.shutdown()
        listener.server_close()
    with bound_at(path):
        pass  # what a killed process left is replaced


def test_once_goes_on_after_an_error(world: World) -> None:
    world.brokers["one"].errors = [DeniedError("no right")]
    followers = [world._made(found) for found in world.tables]
    assert [error.message for error in once(followers)] == [f"{followers[0].table.name}: no right"]
    assert (link(world.home / "one"), link(world.home / "two")) == ("", "gen-000001")
    assert following.Condition.DENIED is followers[0].standing.condition


def test_log_lines_are_of_their_bundle(world: World) -> None:
    world.brokers["two"].errors = [DeniedError("no right")]
    log.reset()  # the fields of tests before
    lines: list[tuple[object, object]] = []
    log.send_to(
        log.Level.INFO, lambda _level, _event, fields: lines.append((fields.get("bundle"), fields.get("lease")))
    )
    followers = [world._made(found) for found in world.tables]
    try:
        once(followers)
    finally:
        log.reset()
    granted = followers[0].granted
    assert granted
    assert lines == [(followers[0].table.name, granted.lease.id), (followers[1].table.name, None)]
