"""Waits at `broker serve`: replicas hear of what a command changes, and a proxy keeps the connection."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import uvicorn

from broker.model.waiting import Ended, Event
from broker.service import waiting as module
from tests.e2e.test_service import Service, serving, token  # noqa: F401  # a fixture
from tests.service.test_waiting import Waits
from tests.support.ports import free_ports
from tests.support.system import System

pytestmark = pytest.mark.slow

NAMES: Final = {"account": "acme", "application": "reporting"}


class Waiter:
    """A wait that has begun: its first blank has come."""

    def __init__(self, pool: ThreadPoolExecutor, service: Service, headers: dict[str, str], **body: object) -> None:
        self._begun: Future[int] = Future()
        self._end = pool.submit(self._wait, service, headers, {**NAMES, "generation": 1, **body})
        assert self._begun.result(60) == 200

    def _wait(self, service: Service, headers: dict[str, str], body: dict[str, object]) -> Any:
        with service.client as client, client.stream("POST", "/v1/wait", json=body, headers=headers) as answer:
            self._begun.set_result(answer.status_code)
            answer.read()
            return answer.json()

    @property
    def end(self) -> Any:
        """The event, once it has come."""
        return self._end.result(60)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def test_every_replica_hears_of_a_change(
    system: System,
    token: dict[str, str],  # noqa: F811
    pool: ThreadPoolExecutor,
) -> None:
    system.ok("csr", "new", "acme")
    system.ok("cert", "import", "acme", str(system.reply()))
    with serving(system) as one, serving(system) as two:
        waiters = [Waiter(pool, service, token) for service in (one, two)]
        system.ok("rotation", "promote", "acme")
        for waiter, service in zip(waiters, (one, two), strict=True):
            assert waiter.end == {"event": "generation", "generation": 2}
            assert service.ask(headers=token).json()["generation"] == 2, "the replica knows it too"
        waiters = [Waiter(pool, service, token, generation=2) for service in (one, two)]
        system.ok("rotation", "rollback", "acme")
        assert [waiter.end["event"] for waiter in waiters] == ["generation"] * 2
        current = waiters[0].end["generation"]
        lease = one.ask(headers=token).json()["lease"]
        waiters = [Waiter(pool, two, token, generation=current, lease=text) for text in (lease, "")]
        holder = f"{system.vault.settings.mount}/reader"
        system.ok("lease", "revoke", "--consumer", holder, "--reason", "gone")
        assert waiters[0].end == {"event": "revoked", "generation": None}
        assert one.ask("/v1/wait", token, **NAMES, generation=current, lease=lease).json()["event"] == "revoked"
        system.ok("account", "suspend", "acme", "--reason", "stolen")
        assert waiters[1].end == {"event": "suspended", "generation": None}
        other = {"X-Vault-Token": system.consumer("acme/other", name="other").read_text()}
        assert one.ask("/v1/wait", other, **NAMES, generation=current).status_code == 403
        assert one.ask("/v1/wait", token, account="none", application="none", generation=0).status_code == 403


def test_a_signal_ends_every_wait(
    system: System,
    token: dict[str, str],  # noqa: F811
    pool: ThreadPoolExecutor,
) -> None:
    with serving(system) as service:
        waiters = [Waiter(pool, service, token) for _ in range(8)]
        service.process.terminate()
        assert {waiter.end["event"] for waiter in waiters} == {"drain"}
        assert service.process.wait(30) == 0


@contextmanager
def in_a_thread(waits: Waits) -> Iterator[int]:
    """Serve the route of waits on loopback; yield the port."""
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(waits.app, port=port, http="httptools", lifespan="off", log_config=None))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[str]:
    """Start a proxy that cuts what is idle for a second; yield its address."""
    (port,) = free_ports(1)
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/nginx.pid; events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_read_timeout 1s; }}
            }}
        }}
    """)
    with subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-e", "stderr"], stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert process.poll() is None
                    time.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.peer("nginx")
def test_a_proxy_keeps_a_wait_with_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets each blank when it is sent: for more seconds than the proxy keeps an idle connection."""
    monkeypatch.setattr(module, "HEARTBEAT", 0.25)
    waits = Waits(over=None)
    body = {"account": "mzp-1", "application": "fleet", "generation": 1}
    with (
        in_a_thread(waits) as port,
        nginx(port, tmp_path) as address,
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{address}/v1/wait", json=body, headers={"X-Vault-Token": "s.token"}) as answer,
    ):
        blanks = answer.iter_bytes(1)
        assert [next(blanks) for _ in range(8)] == [b" "] * 8
        (wait,) = waits.begun
        wait.over.get_loop().call_soon_threadsafe(wait.over.set_result, Ended(Event.GENERATION, 2))
        assert b"".join(blanks).strip() == b'{"event":"generation","generation":2}'


class Hold:
    """`bundle get --hold` through a service, in its own process; `lines` are what it said so far."""

    def __init__(self, system: System, service: Service, consumer: str, number: int) -> None:
        system.changes = {"BROKER_ADDR": service.addresses[0], "BROKER_AUTH": f"token-file:{consumer}.token"}
        self.files = system.home / f"held-{number}"
        self._process = system.start("bundle", "get", "acme/reporting", "--to", str(self.files), "--hold")
        system.changes = {}
        self.lines: list[str] = []
        self.hears("renewed, until a signal")

    def hears(self, text: str) -> None:
        """Read stderr up to a line with `text`."""
        assert self._process.stderr
        while True:
            line = self._process.stderr.readline().decode()
            assert line, self.lines
            self.lines.append(line)
            if text in line:
                return

    def ends(self, code: int) -> None:
        """Wait for its end: no file is left."""
        with self._process:
            assert self._process.wait(60) == code, self.lines
        assert not list(self.files.iterdir())

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()


def test_a_held_bundle_follows(system: System, token: dict[str, str]) -> None:  # noqa: F811
    system.ok("csr", "new", "acme")
    system.ok("cert", "import", "acme", str(system.reply()))
    with serving(system) as service:
        system.consumer("acme/reporting", name="second")
        holds = [Hold(system, service, name, n) for n, name in enumerate(("reader", "reader", "second"))]
        system.ok("rotation", "promote", "acme")
        for hold in holds:
            hold.hears("generation 2 of acme/reporting in")
            assert (hold.files / "current").resolve().name == "gen-000002"
        holds[0].stop()
        holds[0].ends(0)
        assert "/second" in system.run("rotation", "retire", "acme", "--generation", "1").err, (
            "its files are still there"
        )
        system.ok("lease", "revoke", "--consumer", f"{system.vault.settings.mount}/reader", "--reason", "stolen")
        holds[1].ends(5)
        system.ok("account", "suspend", "acme", "--reason", "stolen")
        holds[2].ends(6)
    system.ok("evidence", "verify", "--all")
