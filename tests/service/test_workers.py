"""Several processes behind one address: each serves, one that ends is started again, and they end together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from broker.errors import InputError
from broker.service.listeners import Address
from tests.chaos.cluster import awaited
from tests.support.system import System

COUNTED = re.compile(r'^credential_broker_requests_total\{route="/openapi.json",status="2xx"\} (\d+)', re.MULTILINE)


class Workers:
    """A service with two workers."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def address(self) -> str:
        return self._listening("")[0]

    @property
    def health(self) -> list[str]:
        return self._listening(" for")

    @property
    def pids(self) -> set[int]:
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return set(map(int, file.read_text().split()))

    def served(self, count: int) -> None:
        """Ask that many times, each over its own connection."""
        for _ in range(count):
            assert httpx.get(f"{self.address}/openapi.json", trust_env=False).status_code == 200

    def counts(self) -> list[int]:
        """Return the number of answers of each worker that runs."""
        texts = [httpx.get(f"{at}/metrics", trust_env=False).text for at in self.health[-2:]]
        return [int(found[1]) if (found := COUNTED.search(text)) else 0 for text in texts]

    def _listening(self, rest: str) -> list[str]:
        return re.findall(rf"^listening on (\S+){rest}", self.said, re.MULTILINE)


@contextmanager
def two_workers(system: System, **environment: str) -> Iterator[Workers]:
    system.changes = environment
    log = system.home / "serve.log"
    with log.open("wb") as file:
        process = system.start(
            "serve", "--workers", "2", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0",
            stdout=subprocess.DEVNULL, stderr=file,
        )  # fmt: skip
    with process:
        try:
            yield Workers(process, log)
        finally:
            process.kill()


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
def test_workers_share_an_address(system: System, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        with two_workers(system, NOTIFY_SOCKET=str(tmp_path / "notify")) as workers:
            assert manager.recv(100) == b"READY=1"
            workers.served(24)
            counts = workers.counts()
            assert sum(counts) == 24
            assert all(counts), "the system spreads connections"

            first = min(workers.pids)
            os.kill(first, signal.SIGKILL)
            workers.served(12)
            awaited(lambda: len(workers.health) == 3, "another worker")
            assert first not in workers.pids
            assert "a worker ended" in workers.said

            workers.process.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert workers.process.wait(60) == 0
            with pytest.raises(httpx.ConnectError):
                workers.served(1)


@pytest.mark.slow
def test_no_worker_outlives_the_first_process(system: System) -> None:
    with two_workers(system) as workers:
        awaited(lambda: len(workers.health) == 2, "two workers")
        pids = workers.pids
        workers.process.kill()
        awaited(lambda: all(map(is_gone, pids)), "their end")


@pytest.mark.slow
def test_a_service_that_cannot_start_says_so_once(system: System) -> None:
    with two_workers(system, VAULT_ADDR="http://127.0.0.1:1", BROKER_TIMEOUT="1s") as workers:
        assert workers.process.wait(60) == 3
        assert workers.said.count("error:") == 1


def test_another_service_keeps_its_address() -> None:
    with Address.parse("127.0.0.1:0").bound() as bound:
        bound.listen()
        with pytest.raises(InputError, match="in use"):
            Address(host="127.0.0.1", port=bound.getsockname()[1]).shared(2)


def test_sockets_of_workers_share_a_port(tmp_path: Path) -> None:
    for address in (Address.parse("127.0.0.1:0"), Address(path=tmp_path / "sock")):
        sockets = address.shared(3)
        assert len({bound.getsockname() for bound in sockets}) == 1
        for bound in sockets:
            bound.close()


def test_each_worker_has_a_port_for_its_health() -> None:
    assert [str(Address.parse("127.0.0.1:8251").after(n)) for n in (0, 1)] == [
        "http://127.0.0.1:8251",
        "http://127.0.0.1:8252",
    ]
