"""A replica killed at each of its writes: each consumer with a bundle is on record, and the other replica goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.chaos.fault_results import keep
from tests.support.replicas import ASKED, Replica, Replicas, grounded, replicas
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.service_books import Answer, assert_recorded, held_until, leases_in_evidence, timed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BUNDLE: Final = {**ASKED, "ttl": "30m"}
TERMS: Final = {"move": 3600.0}  # seconds; in the others as asked for
CONSUMERS: Final = ("reader-1", "reader-2", "reader-3")


@dataclass
class Scene:
    """The replica that dies, the one that stays, headers of consumers by name, and what each was answered."""

    services: Replicas
    doomed: Replica
    other: Replica
    tokens: Mapping[str, Mapping[str, str]]
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def ask(self, ask: Callable[[], httpx.Response], name: str = "reader-1") -> Answer | None:
        """Return the answer; None if the replica died over it."""
        try:
            answer = timed(ask)
        except httpx.TransportError:
            return None
        assert answer.status < 300, answer.body
        self.answers.setdefault(name, []).append(answer)
        return answer

    def bundle(self, name: str = "reader-1", **headers: str) -> Answer | None:
        """Ask the doomed one for a bundle."""
        return self.ask(lambda: self.doomed.post(headers={**self.tokens[name], **headers}, **BUNDLE), name)


def grants(scene: Scene) -> None:
    scene.bundle()


def grants_many(scene: Scene) -> None:
    """In batches, for consumers with a record each."""
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(scene.bundle, CONSUMERS * 4))


def renews(scene: Scene) -> None:
    headers = scene.tokens["reader-1"]
    given = scene.other.post(headers=headers, **{**BUNDLE, "ttl": "5m"}).json()["lease"]
    scene.ask(lambda: scene.doomed.post("/v1/leases/renew", headers, lease=given, ttl="30m"))


def revokes(scene: Scene) -> None:
    """After the kill it is done again at the other replica, by the id of the lease."""
    headers = scene.tokens["reader-1"]
    bundle = scene.other.post(headers=headers, **BUNDLE).json()
    given = bundle["lease"]
    asked = scene.ask(lambda: scene.doomed.post("/v1/leases/revoke", headers, lease=given))
    if asked is None:
        named = {name: bundle[name] for name in ("lease_id", "account", "application")}
        assert scene.other.post("/v1/leases/revoke", headers, **named).status_code == 204
    assert scene.other.post("/v1/leases/renew", headers, lease=given).status_code == 403
    scene.answers.clear()


def moves_on(scene: Scene) -> None:
    """Requests of GET share a lease, which moves to the new generation."""
    headers = scene.tokens["reader-1"]
    assert scene.other.get(headers).json()["generation"] == "1"
    scene.services.run("rotation", "promote", ACCOUNT)
    scene.ask(lambda: scene.doomed.get(headers))


SCENES: Final[Mapping[str, tuple[Callable[[Scene], None], int]]] = {  # and how many writes each makes at least
    "grant": (grants, 2),
    "many": (grants_many, 4),
    "renew": (renews, 2),
    "revoke": (revokes, 2),
    "move": (moves_on, 2),
}
KILLS: Final = [
    (name, phase, at)
    for at in range(1, 5)
    for name, (_, writes) in SCENES.items()
    for phase in ("before", "after")
    if at <= writes
]


@pytest.fixture(scope="module")
def saved(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SavedStates]:
    with grounded(vault_server, tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.fixture(scope="module")
def tokens(saved: SavedStates) -> Mapping[str, Mapping[str, str]]:
    files = {name: saved.system.consumer(f"{ACCOUNT}/reporting", name=name) for name in CONSUMERS}
    return {name: {"X-Vault-Token": Path(file).read_text()} for name, file in files.items()}


def played(saved: SavedStates, tokens: Mapping[str, Mapping[str, str]], name: str, **order: Any) -> Scene:
    """Play a scene; return it once all of its services are gone."""
    saved.put("renewed")
    with replicas(saved.system) as services:
        other = services.start()
        assert (
            other.post(headers=tokens[CONSUMERS[2]], **BUNDLE).status_code == 201
        )  # it makes the key that signs leases
        scene = Scene(services, services.start(disturbance="tests.chaos.service_kills:disturb", **order), other, tokens)
        began = datetime.now(UTC).timestamp()
        SCENES[name][0](scene)
        if order:
            assert scene.doomed.wait().code == -signal.SIGKILL, "it made fewer writes"
        again = [timed(partial(scene.other.post, headers=tokens[one], **BUNDLE)) for one in CONSUMERS[1:]]
        assert {answer.status for answer in again} == {201}, "the other replica goes on"
        for one, answer in zip(CONSUMERS[1:], again, strict=True):
            scene.answers.setdefault(one, []).append(answer)
        ended = datetime.now(UTC).timestamp()
    for one, answers in scene.answers.items():
        if name != "renew":  # its answer names no account
            assert_recorded(saved.system, answers, one)
    for generation in (1, 2):
        for until in held_until(saved.system, generation).values():
            assert began < until <= ended + TERMS.get(name, 1800.0) + 1, (
                "a holder counts longer than its last lease can"
            )
    return scene


@pytest.mark.parametrize(("name", "phase", "at"), KILLS[::9])  # make chaos has them all
def test_a_killed_replica_left_all_on_record(
    saved: SavedStates, tokens: Mapping[str, Mapping[str, str]], name: str, phase: str, at: int
) -> None:
    played(saved, tokens, name, phase=phase, at=at)
    leases_in_evidence(saved.system)


@pytest.mark.chaos
@pytest.mark.parametrize("name", SCENES)
def test_a_scene_killed_at_every_write(saved: SavedStates, tokens: Mapping[str, Mapping[str, str]], name: str) -> None:
    kills = [(phase, at) for scene, phase, at in KILLS if scene == name]
    for phase, at in kills:
        played(saved, tokens, name, phase=phase, at=at)
    keep(f"serve, {name}", "SIGKILL", [-signal.SIGKILL] * len(kills))


@pytest.mark.deep
@pytest.mark.parametrize("name", SCENES)
def test_every_write_is_a_point(
    saved: SavedStates, tokens: Mapping[str, Mapping[str, str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a scene writes when nobody is killed: as much as the kills above count on."""
    seen: list[str] = []
    stop = Replica.wait

    def wait(replica: Replica) -> object:
        if replica.trace.exists():
            seen.extend(
                path for phase, path in map(json.loads, replica.trace.read_text().splitlines()) if phase == "after"
            )
        return stop(replica)

    monkeypatch.setattr(Replica, "wait", wait)
    played(saved, tokens, name)
    kinds = {part for path in seen for part in ("consumers", "evidence/issued") if part in path}
    assert kinds == {"consumers", "evidence/issued"}
    writes = SCENES[name][1]
    assert len(seen) == writes or (name == "many" and len(seen) >= writes), seen
