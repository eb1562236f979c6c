"""The agent's health over HTTP, on loopback and on a unix socket."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broker.agent import listening as listening_module
from broker.agent.binding import bound_at, bound_to
from broker.agent.health import Health
from broker.agent.listening import Listener
from broker.errors import InputError

GOOD = b"HTTP/1.0 200"


@contextmanager
def listening(bound: socket.socket, left: threading.Event | None = None) -> Iterator[None]:
    listener = Listener(bound, Health(tuple), left.set if left else None)
    listener.start()
    try:
        yield
    finally:
        listener.shutdown()
        listener.server_close()


def asked(family: int, address: str | tuple[str, int], request: bytes) -> bytes:
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: localhost:1\r\n\r\n", GOOD),
        (b"GET /metrics?x=1 HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", GOOD),
        (b"GET /livez HTTP/1.0\r\n\r\n", GOOD),
        (b"HEAD /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", GOOD),
        (b"GET /startz HTTP/1.0\r\n\r\n", b"HTTP/1.0 503"),  # no bundle is followed yet
        (b"GET /readyz HTTP/1.0\r\n\r\n", b"HTTP/1.0 503"),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"HTTP/1.0 421"),
        (b"GET /secret HTTP/1.0\r\n\r\n", b"HTTP/1.0 404"),
        (b"POST /quit HTTP/1.0\r\n\r\n", b"HTTP/1.0 405"),
        (b"PUT /livez HTTP/1.0\r\n\r\n", b"HTTP/1.0 501"),
        (b"\x16\x03\x01\x02\r\n\r\n", b""),
    ],
)
def test_each_request_has_its_answer(request_: bytes, answer: bytes) -> None:
    bound = bound_to("127.0.0.1:0")
    with listening(bound):
        found = asked(socket.AF_INET, bound.getsockname(), request_)
    assert found.startswith(answer)
    if request_.startswith(b"HEAD"):
        assert found.endswith(b"\r\n\r\n")


def test_the_socket_takes_any_host_and_quit(tmp_path: Path) -> None:
    left = threading.Event()
    path = tmp_path / "agent.sock"
    with listening(bound_at(path), left):
        assert path.stat().st_mode & 0o777 == 0o600
        assert asked(socket.AF_UNIX, str(path), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").startswith(GOOD)
        assert not left.is_set()
        assert asked(socket.AF_UNIX, str(path), b"POST /quit HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.0 202")
        with pytest.raises(InputError, match="another process listens"):
            bound_at(path)
    assert left.is_set()


def test_a_dripping_client_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the request never ends."""
    monkeypatch.setattr(listening_module, "_LONGEST", 0.0)
    bound = bound_to("127.0.0.1:0")
    with listening(bound), socket.create_connection(bound.getsockname()) as client, suppress(OSError):
        while True:  # until the connection is reset
            client.sendall(b"G")
            time.sleep(0.01)


def test_slow_clients_do_not_pile_up() -> None:
    bound = bound_to("127.0.0.1:0")
    with listening(bound):
        slow = [socket.create_connection(bound.getsockname()) for _ in range(16)]
        refused = b""
        with socket.create_connection(bound.getsockname()) as more:
            more.settimeout(10)
            refused = more.recv(1)
        assert refused == b""
        for one in slow:
            one.close()
