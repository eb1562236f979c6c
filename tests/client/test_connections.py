"""Connections end with their generation, its certificate and the bundle; no request in flight fails."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.client import following
from broker.copies import replace
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from tests.support.credential_sets import LEASE, LOGIN, publish, withdraw
from tests.support.keeping import Keeping
from tests.support.sessions import Calls

pytestmark = pytest.mark.slow

Opened = Callable[..., AbstractContextManager[Calls]]


@pytest.fixture
def here(bundle: Bundle, server: Keeping) -> Bundle:
    return replace(bundle, base_url=server.url)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECK_EVERY", 0.01)


def newer(bundle: Bundle) -> Bundle:
    return replace(bundle, generation=bundle.generation + 1, secrets={"password": Secret("newer")})


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"{LOGIN}:{password}".encode()).decode()


@pytest.mark.usefixtures("checks_never")
def test_a_connection_is_kept(server: Keeping, here: Bundle, tmp_path: Path, opened: Opened) -> None:
    publish(tmp_path, here)
    with opened(tmp_path) as calls:
        assert [calls.get("/a"), calls.get("/b")] == [200, 200]
        assert len({port for port, _, _ in server.got}) == 1
        assert len(server.open) == 1
    server.until(lambda: not server.open)


@pytest.mark.usefixtures("often")
def test_news_close_idle_connections(server: Keeping, here: Bundle, tmp_path: Path, opened: Opened) -> None:
    """Without a request: the thread sees the rotation."""
    publish(tmp_path, here)
    with opened(tmp_path) as calls:
        calls.get()
        publish(tmp_path, newer(here))
        server.until(lambda: not server.open)
        calls.get()
        assert server.got[-1][2] == basic("newer")


@pytest.mark.usefixtures("often")
def test_withdrawal_closes_idle_connections(server: Keeping, here: Bundle, tmp_path: Path, opened: Opened) -> None:
    publish(tmp_path, here)
    with opened(tmp_path) as calls:
        calls.get()
        withdraw(tmp_path, LEASE)
        server.until(lambda: not server.open)
        assert calls.get() == 200, "the set in memory may still work"


@pytest.mark.usefixtures("often")
def test_connections_end_with_the_certificate(server: Keeping, here: Bundle, tmp_path: Path, opened: Opened) -> None:
    publish(tmp_path, replace(here, not_after=datetime.now(UTC) + timedelta(seconds=1)))
    with opened(tmp_path) as calls:
        calls.get()
        server.until(lambda: not server.open)
        calls.get()
        server.until(lambda: not server.open)


@pytest.mark.slow
@pytest.mark.usefixtures("checks_never")
def test_200_requests_in_flight_do_not_fail(server: Keeping, here: Bundle, tmp_path: Path, opened: Opened) -> None:
    """They end with their own set, and their connections with them."""
    publish(tmp_path, here)
    statuses: list[int] = []
    with opened(tmp_path, timeout=(100, 200)) as calls:
        threads = [threading.Thread(target=lambda: statuses.append(calls.get("/slow"))) for _ in range(200)]
        for thread in threads:
            thread.start()
        server.until(lambda: server.waiting == 200)
        publish(tmp_path, newer(here))
        assert calls.session.follow()
        assert calls.get() == 200
        assert server.got[-1][2] == basic("newer")
        server.go.set()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 200
        server.until(lambda: len(server.open) == 1)
