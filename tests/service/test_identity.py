"""Who asks: identities that end while the service remembers them, and refusals that say nothing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.service.test_isolation import told
from tests.support.issuer import Issuer, trusting
from tests.support.replicas import Replica, grounded, replicas
from tests.support.system import System
from tests.support.vault import admin_token

pytestmark = pytest.mark.slow


@dataclass
class World:
    """A service, and issuers of which it trusts `ci`, `pods` and `old`; each has one subject, its own name."""

    system: System
    service: Replica
    issuers: dict[str, Issuer]
    token: str

    def ask(self, issuer: str, subject: str = "", **claims: object) -> httpx.Response:
        """Ask for a bundle with a new JWT."""
        return self.show(self.issuers[issuer].jwt(subject or f"job:{issuer}", **claims))

    def show(self, jwt: str) -> httpx.Response:
        return self.service.post(headers={"Authorization": f"Bearer {jwt}"})


@pytest.fixture(scope="module")
def world(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with grounded(vault_server, tmp_path_factory.mktemp("identity")) as saved:
        saved.put("promoted")
        token = Path(saved.token()).read_text()
        names = {name: f"job:{name}" for name in ("ci", "pods", "old", "gone")}
        with trusting(saved.system, names) as issuers, replicas(saved.system, 1) as made:
            yield World(saved.system, made.running[0], issuers, token)


def ended(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until it is refused: what is remembered ends within seconds."""
    while True:
        answer = ask()
        if answer.status_code == 403:
            return answer
        assert answer.status_code == 201, answer.text


def entity(world: World, name: str) -> str:
    return f"identity/entity/name/{world.system.vault.settings.mount}/{name}"


def test_what_ends_meanwhile_is_refused(world: World) -> None:
    """A revoked token, a disabled entity behind a good JWT, and a removed consumer: all get the same answer."""
    admin = world.system.vault.admin
    jwts = {name: world.issuers[name].jwt(f"job:{name}") for name in ("old", "gone")}
    asking: list[Callable[[], httpx.Response]] = [
        lambda: world.service.post(headers={"X-Vault-Token": world.token}),
        lambda: world.show(jwts["old"]),
        lambda: world.ask("old"),
        lambda: world.show(jwts["gone"]),
        lambda: world.ask("gone"),
    ]
    assert [ask().status_code for ask in asking] == [201] * 5
    admin.call("POST", "auth/token/revoke", {"token": world.token})
    admin.call("POST", entity(world, "old"), {"disabled": True})
    mounts = [f"{world.system.vault.settings.mount}-jwt/gone"]
    world.system.changes = {"VAULT_TOKEN": admin_token(admin, jwt_mounts=mounts).reveal()}
    world.system.ok("vault", "enrol", "--remove", "gone")
    world.system.changes = {}
    answers = [told(ended(ask)) for ask in asking]
    assert all(answer == answers[0] for answer in answers)


def test_no_refusal_of_a_jwt_says_why(world: World) -> None:
    unknown = world.service.post(headers={"X-Vault-Token": "s.unknown"})
    forger = Issuer("https://ci.example")
    wrong: list[dict[str, Any]] = [
        {"aud": "another"}, {"iss": "https://other.example"}, {"iss": "https://pods.example"},
        {"exp": 1}, {"nbf": 4_000_000_000}, {"sub": "job:pods"},
    ]  # fmt: skip
    answers = [world.ask("ci", **claims) for claims in wrong]
    answers += [world.show(jwt) for jwt in (forger.jwt("job:ci"), world.issuers["ci"].unsigned("job:ci"), "a.b.c")]
    answers += [world.ask("pods", subject="job:ci")]
    assert {told(answer)[0] for answer in answers} == {403}
    assert all(told(answer) == told(unknown) for answer in answers)


def test_a_flood_of_garbage_stops_nobody(world: World) -> None:
    """Forged JWTs, each a new one, over many connections, while a consumer asks."""
    known = world.issuers["ci"].jwt("job:ci")
    assert world.show(known).status_code == 201
    forger, over = Issuer("https://ci.example"), threading.Event()

    def flood(first: int) -> set[int]:
        codes = set()
        for number in itertools.count(first, 12):
            codes.add(world.show(forger.jwt("job:ci", jti=str(number))).status_code)
            if over.is_set():
                return codes
        raise AssertionError

    with ThreadPoolExecutor(12) as threads:
        flooding = [threads.submit(flood, first) for first in range(12)]
        codes = {world.show(known).status_code for _ in range(50)}
        over.set()
        assert codes == {201}
        assert {code for one in flooding for code in one.result()} <= {403, 503}
