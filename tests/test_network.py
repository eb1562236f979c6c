"""Connect within a deadline, and read Retry-After."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from broker import network
from broker.network import Deadline, connected, retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@contextmanager
def dead() -> Iterator[Any]:
    """Yield an address where connections are neither taken nor refused: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(server.getsockname())
        yield server.getsockname()


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: Any) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_dead_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is told by a clock that only waiting moves."""
    waits: list[float] = []

    class Dead(socket.socket):
        def connect(self, address: Any) -> None:
            waits.append(self.gettimeout() or 0)
            raise TimeoutError

    monkeypatch.setattr(network, "time", SimpleNamespace(monotonic=lambda: sum(waits)))
    monkeypatch.setattr(socket, "socket", Dead)
    resolving(monkeypatch, *(("127.0.0.1", port) for port in (1, 2, 3)))
    with pytest.raises(TimeoutError):
        connected("partner.test", 443, Deadline(3.0))
    assert waits == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.slow
def test_dead_address_leaves_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead() as first, socket.create_server(("127.0.0.1", 0)) as alive:
        resolving(monkeypatch, first, alive.getsockname())
        with connected("partner.test", 443, Deadline(3.0)) as channel:
            assert channel.getpeername() == alive.getsockname()


def test_hanging_resolver_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait())
    with pytest.raises(TimeoutError):
        connected("partner.test", 443, Deadline(0.1))
    ended.set()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", ""])  # what no name server is asked for
def test_impossible_name_is_os_error(host: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        connected(host, 1, Deadline(5))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Thu, 01 Jan 2026 12:02:00 GMT", 120),
        ("Thu, 01 Jan 2026 14:02:00 +0200", 120),
        ("Thu, 01 Jan 2026 12:02:00 -0000", 120),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e9", None),
        ("9" * 400, None),
        ("Thu, 99 Jan 2026 12:02:00 GMT", None),
        ("Thu, 01 Jan 99999 12:02:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_date(value: str, seconds: int | None) -> None:
    assert retry_after(value, NOW) == seconds
