"""Bounds on connections and on the head of a request, with real sockets."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from broker.service import limits, listeners
from broker.service.app import application
from broker.service.asgi import Request, Response, routed
from broker.service.limits import LOOPBACK_NAMES, Guard
from broker.service.listeners import Address, Listener
from broker.service.tls import ReloadedTls, Tls
from tests.service.test_tls import write_pair

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEADS = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    (b"GET / HTTP/1.1\r\nHost: localhost.evil.example:8250\r\n\r\n", 421),
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421),
    (b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"GET /" + b"a" * 40_000, 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000, 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20_000, 431),
]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
WRITERS: list[asyncio.StreamWriter] = []  # of this test


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LINGER", 0.02)


class Application:
    """Answers with the body's length and the identity it saw; `held` keeps requests for /held waiting."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.waiting = asyncio.Event()
        routes = {("GET", "/"): self._at_once, ("POST", "/"): self._with_body, ("GET", "/held"): self._held}
        routes["GET", "/large"] = self._large
        self.app = routed(routes, lambda _, status: Response(status))

    async def _at_once(self, request: Request) -> Response:
        return Response(200, b"ok")

    async def _with_body(self, request: Request) -> Response:
        body = await request.body()
        return Response(200, f"{len(body)} {request.headers('x-vault-token')}".encode())

    async def _large(self, request: Request) -> Response:
        return Response(200, bytes(16 * 1024 * 1024))

    async def _held(self, request: Request) -> Response:
        self.waiting.set()
        await self.held.wait()
        return Response(200, b"held")


@asynccontextmanager
async def served(guard: Guard | None = None, tls: Tls | None = None) -> AsyncIterator[tuple[int, Application]]:
    """Serve an `Application` on loopback; yield its port."""
    made, ready = Application(), asyncio.get_running_loop().create_future()
    listener = Listener(made.app, Address("", "127.0.0.1", 0, bool(tls)), tls, guard or Guard(hosts=LOOPBACK_NAMES))  # type: ignore[arg-type]
    task = asyncio.create_task(listeners._serve([listener], ready.set_result, lambda _: None))
    try:
        yield int((await ready)[0].rpartition(":")[2]), made
    finally:
        made.held.set()
        for writer in WRITERS:
            writer.close()
        WRITERS.clear()
        signal.raise_signal(signal.SIGTERM)
        await task


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), 120))


async def opened(port: int, sent: bytes = b"", context: ssl.SSLContext | None = None) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    WRITERS.append(writer)
    writer.write(sent)
    return reader, writer


async def answer(stream: Stream) -> tuple[int, bytes]:
    """Read one answer: its status and body."""
    head = await stream[0].readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split()[1]), await stream[0].readexactly(int(length.split(b":")[1]))


async def refused(port: int, sent: bytes) -> int:
    """Return the status of the problem that answers `sent`; the connection is closed after it."""
    stream = await opened(port, sent)
    status, body = await answer(stream)
    assert b'"code":"input"' in body
    await ended(stream)
    return status


async def ended(stream: Stream) -> None:
    """Wait until the service closes the connection."""
    with suppress(ConnectionResetError):
        assert await stream[0].read() == b""


def test_heads_that_are_refused() -> None:
    async def test() -> None:
        async with served() as (port, _):
            statuses = await asyncio.gather(*(refused(port, head) for head, _ in HEADS))
            assert statuses == [status for _, status in HEADS]

    run(test)


def test_names_of_loopback_are_served() -> None:
    async def test() -> None:
        async with served() as (port, _):
            for host in (b"localhost", b"LOCALHOST:8250", b"127.0.0.1:1", b"[::1]:8250"):
                assert (await answer(await opened(port, GET.replace(b"localhost", host))))[0] == 200
            assert (await answer(await opened(port, b"GET / HTTP/1.0\r\n\r\n")))[0] == 200, "an old probe has none"

    run(test)


def test_other_listeners_serve_any_name() -> None:
    assert Address.parse("127.0.0.1:1").names == LOOPBACK_NAMES
    assert Address.parse("http://127.0.0.9:1").names == LOOPBACK_NAMES | {b"127.0.0.9"}
    for text in ("https://127.0.0.1:1", "unix:///run/s"):
        assert Address.parse(text).names is None
    assert Address.parse("0.0.0.0:1", behind_proxy=True).names is None


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"\r\n", GET + b"GET /"])
def test_a_slow_head_is_cut(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    """Also one that drips: no byte of it gives more time."""
    monkeypatch.setattr(limits, "_ARRIVAL", 0.1)

    async def drip(writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(0.02)
            writer.write(b"a" if start.strip() else b"\r\n")

    async def test() -> None:
        async with served() as (port, _):
            stream = await opened(port, start)
            if start.startswith(GET):
                assert (await answer(stream))[0] == 200
            dripping = asyncio.create_task(drip(stream[1]))
            assert (await answer(stream))[0] == 408
            await ended(stream)
            dripping.cancel()
            assert (await answer(await opened(port, GET)))[0] == 200

    run(test)


def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_UNREAD", 0.1)

    async def test() -> None:
        guard = Guard(hosts=LOOPBACK_NAMES)
        async with served(guard) as (port, _):
            stream = await opened(port, GET.replace(b"/ ", b"/large "))
            assert (await stream[0].readline()).startswith(b"HTTP/1.1 200")
            while guard.open:
                await asyncio.sleep(0.01)
            assert (await answer(await opened(port, GET)))[0] == 200

    run(test)


def test_a_body_that_nobody_reads_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_ARRIVAL", 0.1)

    async def test() -> None:
        async with served() as (port, _):
            stream = await opened(port, GET[:-2] + b"Content-Length: 100\r\n\r\na")
            assert (await answer(stream))[0] == 200
            await ended(stream)

    run(test)


def test_a_late_body_leaves_the_connection() -> None:
    """The answer comes before the body's end: the connection serves on, and counts as idle."""

    async def test() -> None:
        guard = Guard(hosts=LOOPBACK_NAMES)
        async with served(guard) as (port, _):
            stream = await opened(port, GET[:-2] + b"Content-Length: 2\r\n\r\na")
            assert (await answer(stream))[0] == 200
            assert not guard.idle
            stream[1].write(b"b" + GET)
            assert (await answer(stream))[0] == 200
            assert len(guard.idle) == 1

    run(test)


def test_a_held_request_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits for its answer has arrived; so has what is pipelined behind it and not read yet."""
    monkeypatch.setattr(limits, "_ARRIVAL", 0.05)

    async def test() -> None:
        async with served() as (port, made):
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n"
            stream = await opened(port, GET.replace(b"/ ", b"/held ") + head + b"a" * 1000)
            await made.waiting.wait()
            await asyncio.sleep(0.2)
            made.held.set()
            assert await answer(stream) == (200, b"held")

    run(test)


def test_trailers_are_no_headers() -> None:
    async def test() -> None:
        async with served() as (port, _):
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            stream = await opened(port, head + b"1\r\na\r\n0\r\nX-Vault-Token: s.smuggled\r\n\r\n")
            assert await answer(stream) == (200, b"1 []")

    run(test)


def test_the_longest_idle_makes_room() -> None:
    async def test() -> None:
        async with served(Guard(3, LOOPBACK_NAMES)) as (port, _):
            first, second, third = [await opened(port, GET) for _ in range(3)]
            for stream in (first, second, third):
                assert (await answer(stream))[0] == 200
            first[1].write(GET)  # so the second is idle longest
            assert (await answer(first))[0] == 200
            fourth = await opened(port, GET)
            assert (await answer(fourth))[0] == 200
            await ended(second)
            for stream in (first, third, fourth):
                stream[1].write(GET)
                assert (await answer(stream))[0] == 200

    run(test)


def test_a_full_house_says_so() -> None:
    async def test() -> None:
        async with served(Guard(1, LOOPBACK_NAMES)) as (port, made):
            busy = await opened(port, GET.replace(b"/ ", b"/held "))
            await made.waiting.wait()
            more = await opened(port)
            assert (await answer(more))[0] == 503
            await ended(more)
            made.held.set()
            assert await answer(busy) == (200, b"held")

    run(test)


def test_a_slow_handshake_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(listeners, "_HANDSHAKE", 0.1)

    async def test() -> None:
        async with served(Guard(), ReloadedTls(*write_pair(tmp_path, "one"))) as (port, _):
            await ended(await opened(port, b"\x16"))
            assert (await answer(await opened(port, GET, ssl._create_unverified_context())))[0] == 200

    run(test)


def test_an_answer_is_one_record(tmp_path: Path) -> None:
    context = ssl._create_unverified_context()

    def read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as stream:
            stream.sendall(GET)
            return stream.recv(1000)  # OpenSSL returns one record

    async def test() -> None:
        async with served(Guard(), ReloadedTls(*write_pair(tmp_path, "one"))) as (port, _):
            head, _, body = (await asyncio.to_thread(read, port)).partition(b"\r\n\r\n")
            assert (head.split()[1], body) == (b"200", b"ok")

    run(test)


def test_handshakes_are_bounded(tmp_path: Path) -> None:
    """Connections that send nothing: the oldest ones make room, and a client gets through."""
    most = 2

    async def test() -> None:
        guard = Guard(connections=most * 4)
        async with served(guard, ReloadedTls(*write_pair(tmp_path, "one"))) as (port, _):
            silent = [await opened(port) for _ in range(10)]
            for stream in silent[:-most]:
                await ended(stream)
            assert not any(stream[0].at_eof() for stream in silent[-most:])
            assert (await answer(await opened(port, GET, ssl._create_unverified_context())))[0] == 200

    run(test)


@pytest.mark.slow
def test_idle_connections_leave_it_serving() -> None:
    """10,000, or as many as this process may open: half of its files, since both ends are here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard // 2 - 200)

    async def test() -> None:
        async with served(Guard(count - 100, LOOPBACK_NAMES)) as (port, _):
            idle = []
            for _ in range(count):
                made = socket.socket()
                made.setblocking(False)
                await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
                idle.append(made)
            for _ in range(3):
                assert (await answer(await opened(port, GET)))[0] == 200
            for made in idle:
                made.close()

    try:
        run(test)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_end_answers_what_is_open(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With a problem, before uvicorn answers in plain text and logs a traceback."""
    monkeypatch.setattr(listeners, "_DRAIN", 0.1)

    async def test() -> None:
        asked, ready = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def held(_request: Request) -> Response:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        listener = Listener(application(cast("Any", None), {("GET", "/held"): held}), Address(None, "127.0.0.1", 0))
        task = asyncio.create_task(listeners._serve([listener], ready.set_result, lambda _: None))
        port = int((await ready)[0].rpartition(":")[2])
        stream = await opened(port, GET.replace(b"/", b"/held", 1))
        await asked.wait()
        signal.raise_signal(signal.SIGTERM)
        status, body = await answer(stream)
        assert (status, json.loads(body)["detail"]) == (503, "this replica ends")
        stream[1].close()
        await task

    run(test)
    assert not caplog.records
