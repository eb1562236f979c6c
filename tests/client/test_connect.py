"""Sessions straight from the service: the bundle is in memory, and follows what happens to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from partner_standin import Standin

import broker.client
import broker.client.aiohttp
import broker.client.httpx
from broker.agent import holding
from broker.client import leased as module
from broker.client.leased import Leased
from broker.copies import replace
from broker.errors import DeniedError, InputError, RefusedError, VaultUnavailableError
from broker.model.bundle import Bundle, Granted, Wanted
from broker.model.secret import Secret
from broker.model.waiting import Ended, Event
from tests.agent.test_holding import WANTED, Source
from tests.support.credential_sets import LOGIN, PASSWORD
from tests.support.keeping import Keeping
from tests.support.sessions import HOLDING, Calls

pytestmark = pytest.mark.slow

LATER = module._LATER
Opened = Callable[..., AbstractContextManager[Calls]]


@dataclass
class Leases(Source):
    """Leases of a bundle that the stand-in accepts; generation 2 has the password "newer"."""

    bundle: Bundle | None = None

    def grant(self, wanted: Wanted) -> Granted:
        granted = super().grant(wanted)
        assert self.bundle
        password = Secret(PASSWORD if self.current == 1 else "newer")
        bundle = replace(self.bundle, generation=self.current, secrets={"password": password})
        return replace(granted, bundle=replace(bundle, lease_id=granted.lease.id, expires=granted.lease.expires))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PAUSE", "_CUT", "_AGAIN", "_READ"):
        monkeypatch.setattr(holding, name, (0.0, 0.01))
    monkeypatch.setattr(module, "_LATER", (0.0, 0.01))
    monkeypatch.setattr(module, "_GRACE", timedelta(milliseconds=20))


@pytest.fixture(params=HOLDING)
def opened(request: pytest.FixtureRequest) -> Opened:
    return HOLDING[request.param]


@pytest.fixture
def source(bundle: Bundle, server: Keeping) -> Iterator[Leases]:
    made = Leases(bundle=replace(bundle, base_url=server.url))
    yield made
    made.news.put(Ended(Event.TIMEOUT))


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


def test_a_rotation_is_followed(server: Keeping, source: Leases, opened: Opened) -> None:
    """Connections of the older generation end, and its lease is given back; the last one by closing."""
    with opened(Leased(source, WANTED, None)) as calls:
        assert calls.get() == 200
        source.rotate()
        server.until(lambda: not server.open)
        until(lambda: source.returned == ["lease-1"])
        assert calls.get() == 200
        assert calls.session.manifest.generation == 2
        assert server.got[0][2] != server.got[1][2]
    assert source.returned == ["lease-1", "lease-2"]
    with pytest.raises(RefusedError, match="the session is closed"):
        calls.session.current.lend()


def test_a_lease_outlives_requests_in_flight(server: Keeping, source: Leases, opened: Opened) -> None:
    statuses: list[int] = []
    with opened(Leased(source, WANTED, None)) as calls:
        request = threading.Thread(target=lambda: statuses.append(calls.get("/slow")))
        request.start()
        server.until(lambda: server.waiting == 1)
        source.rotate()
        until(lambda: calls.session.manifest.generation == 2)
        assert calls.get() == 200
        assert not source.returned
        server.go.set()
        request.join()
        until(lambda: source.returned == ["lease-1"])
    assert statuses == [200]


def test_a_rejected_login_asks_the_service(partner: Standin, bundle: Bundle, opened: Opened) -> None:
    """Without news: the lease is renewed, and a newer generation comes with it."""
    source = Leases(bundle=bundle)
    partner.log.clear()
    with opened(Leased(source, WANTED, None)) as calls:
        partner.registry.set_password(LOGIN, "newer")
        source.current = 2
        assert calls.get() == 200
        source.news.put(Ended(Event.TIMEOUT))
    assert [entry.status for entry in partner.log.entries()] == [401, 200]


def test_a_suspension_ends_connections(server: Keeping, source: Leases, opened: Opened) -> None:
    """Requests are refused with its reason; afterwards the session works again."""
    with opened(Leased(source, WANTED, None)) as calls:
        assert calls.get() == 200
        source.errors += [RefusedError("acme is suspended")] * 10_000
        source.news.put(Ended(Event.SUSPENDED))
        server.until(lambda: not server.open)
        with pytest.raises(RefusedError, match="acme is suspended"):
            calls.get()
        assert calls.session.withdrawn
        source.errors.clear()
        until(lambda: not calls.session.withdrawn)
        assert calls.get() == 200


def test_a_revoked_session_asks_now_and_then(source: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request for each pause, for as long as it lasts: a person may grant the right again."""
    pauses: list[float] = []
    session = broker.client.Session(leased := Leased(source, WANTED, None))

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) > 20:
            leased._ended.set()
        return leased._ended.is_set()

    monkeypatch.setattr(module, "_LATER", LATER)
    monkeypatch.setattr(leased._ended, "wait", pause)
    source.errors += [DeniedError("no right")] * 100
    source.news.put(Ended(Event.REVOKED))
    leased._thread.join()
    assert 100 - len(source.errors) == 1 + 20, "the lease was asked for, then a bundle after each pause"
    assert all(20 <= seconds <= 40 for seconds in pauses)
    assert len(set(pauses)) > 1, "not all sessions ask together"
    session.close()


def test_the_end_of_a_lease_ends_connections(server: Keeping, source: Leases, opened: Opened) -> None:
    """While the service is away for longer than the lease."""
    source.term = timedelta(seconds=1)
    with opened(Leased(source, WANTED, None)) as calls:
        assert calls.get() == 200
        source.errors += [VaultUnavailableError("away")] * 100_000
        server.until(lambda: not server.open)
        with pytest.raises(VaultUnavailableError):
            calls.get()
        source.errors.clear()
        until(lambda: not calls.session.withdrawn)
        assert calls.get() == 200


def test_connections_end_with_the_certificate(server: Keeping, source: Leases, opened: Opened) -> None:
    assert source.bundle
    source.bundle = replace(source.bundle, not_after=datetime.now(UTC) + timedelta(seconds=1))
    with opened(Leased(source, WANTED, None)) as calls:
        calls.get()
        server.until(lambda: not server.open)


def test_a_session_that_is_lost_gives_back(source: Leases) -> None:
    session = broker.client.Session(Leased(source, WANTED, None))
    assert session.get("/fleets").status_code == 200
    del session
    until(lambda: source.returned == ["lease-1"])


@pytest.mark.parametrize(
    ("application", "options"),
    [
        ("acme/reporting", {"auth": "jwt-env:TOKEN"}),
        ("acme/reporting", {"address": "http://127.0.0.1:1", "auth": "jwt-env:NONE"}),
        ("acme/reporting", {"address": "http://127.0.0.1:1", "auth": "planted"}),
        ("acme/reporting", {"address": "http://broker.example", "auth": "jwt-env:TOKEN"}),
        ("acme", {"address": "http://127.0.0.1:1", "auth": "jwt-env:TOKEN"}),
        ("ACME/reporting", {"address": "http://127.0.0.1:1", "auth": "jwt-env:TOKEN"}),
        ("acme/reporting", {"address": "http://127.0.0.1:1", "auth": "jwt-env:TOKEN", "ttl": "soon"}),
        ("acme/reporting", {"address": "http://127.0.0.1:1", "auth": "jwt-env:TOKEN", "proxy": "ftp://x"}),
    ],
)
def test_unusable_options_are_refused(
    application: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "t0ken")
    for name in ("BROKER_ADDR", "BROKER_AUTH", "BROKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError) as caught:
        broker.client.connect(application, **options)  # type: ignore[arg-type]
    assert caught.value.hint
    assert "planted" not in str(caught.value) + caught.value.hint


def test_a_service_that_is_away_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0ken")
    ways = (broker.client.connect, broker.client.aiohttp.connect)
    for connect in (*ways, broker.client.httpx.connect, broker.client.httpx.connect_async):
        with pytest.raises(VaultUnavailableError, match="no answer"):
            connect("acme/reporting", address="http://127.0.0.1:1", auth="jwt-env:TOKEN")
