"""Health: computed when asked for, shared for a second, and never an attack on Vault."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

import httpx
import pytest

from broker.errors import BrokerError, RefusedError, UnknownNameError, VaultUnavailableError
from broker.model.names import AccountName
from broker.service import health as module
from broker.service.health import Watched, health

Get = Callable[[str], Coroutine[None, None, httpx.Response]]


@dataclass
class World:
    """Checks that note who asked, wait for `gate`, and raise `error`."""

    error: BrokerError | None = None
    asked: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    most: int = 0
    scraped: int = 0

    def __post_init__(self) -> None:
        self.gate.set()
        self._now = 0
        self._lock = threading.Lock()

    def check(self) -> None:
        self.check_account(AccountName(""))

    def check_account(self, name: AccountName) -> None:
        with self._lock:
            self.asked.append(name)
            self._now += 1
            self.most = max(self.most, self._now)
        self.gate.wait(30)
        with self._lock:
            self._now -= 1
        if self.error:
            raise self.error

    def metrics(self) -> bytes:
        self.scraped += 1
        return b"metrics %d\n" % self.scraped

    def test(self, body: Callable[[Get], Awaitable[None]]) -> None:
        async def asked() -> None:
            transport = httpx.ASGITransport(health(Watched(self.check, self.check_account, self.metrics)))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                await body(client.get)

        asyncio.run(asyncio.wait_for(asked(), 60))


@pytest.fixture
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRESH", 0.0)


@pytest.mark.usefixtures("_no_memory")
def test_readiness_is_never_latched() -> None:
    world = World(VaultUnavailableError("https://vault.internal:8200 is sealed"))

    async def body(get: Get) -> None:
        for path in ("/readyz", "/readyz/acme", "/startz"):
            answer = await get(path)
            assert (answer.status_code, "Vault is away" in answer.json()["message"]) == (503, True)
            assert "vault.internal" not in answer.text, "the log says it, for this port is open to all"
        assert (await get("/livez")).status_code == 200
        world.error = None
        for path in ("/readyz", "/readyz/acme", "/startz"):
            assert (await get(path)).status_code == 200
        world.error = RefusedError("expired")
        for path in ("/readyz", "/readyz/acme"):
            assert (await get(path)).status_code == 503
        assert (await get("/startz")).status_code == 200, "it has started"
        assert (await get("/livez")).status_code == 200

    world.test(body)


def test_one_check_serves_all_probers() -> None:
    world = World()
    world.gate.clear()

    async def body(get: Get) -> None:
        asked = [asyncio.create_task(get("/readyz")) for _ in range(50)]
        while not world.asked:
            await asyncio.sleep(0)
        world.gate.set()
        assert {(await answer).status_code for answer in asked} == {200}
        assert (await get("/readyz")).status_code == 200
        assert world.asked == [""]

    world.test(body)


def test_few_checks_are_with_vault() -> None:
    world = World()

    async def body(get: Get) -> None:
        answers = await asyncio.gather(*(get(f"/readyz/a{n}") for n in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert world.most <= 2

    world.test(body)


def test_a_hanging_check_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.01)
    world = World()
    world.gate.clear()

    async def body(get: Get) -> None:
        for _ in range(5):
            assert (await get("/readyz")).status_code == 503
        assert world.asked == [""]
        world.gate.set()

    world.test(body)


def test_unknown_accounts_are_not_found() -> None:
    world = World(UnknownNameError("there is no account none"))

    async def body(get: Get) -> None:
        for path in ("/readyz/none", "/readyz/..%2f", "/readyz/", "/other"):
            assert (await get(path)).status_code == 404
        assert world.asked == ["none"]

    world.test(body)


def test_metrics_are_text() -> None:
    async def body(get: Get) -> None:
        for answer in await asyncio.gather(*(get("/metrics") for _ in range(10))):
            assert (answer.status_code, answer.text) == (200, "metrics 1\n")
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")

    World().test(body)
