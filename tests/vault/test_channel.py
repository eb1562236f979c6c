"""One connection from an event loop to Vault: it stores what is plain, and says of nothing else that it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.copies import replace
from broker.errors import ConflictError
from broker.model.chain import Entry, Head, appended
from broker.model.secret import Secret
from broker.telemetry import metrics
from broker.vault.channel import Channel
from broker.vault.connection import Connection, Phase
from broker.vault.evidence import VaultEvidence
from broker.vault.logins import FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.transport import Seen
from tests.support.accounts import STAMP
from tests.support.on_loop import run
from tests.support.vault import TestVault

WRITTEN = b'{"data": {"version": 1}}'
TOKEN = "s.PlantedTokenNeverSeen"


def answer(body: bytes = WRITTEN, status: str = "200 OK", *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))
    return f"{head}\r\n".encode() + body


@dataclass
class Peer:
    """Answers each request with the next of `answers`, None: by nothing; then it hangs up if that is empty."""

    answers: list[bytes | None]
    asked: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"Content-Length:"))
                self.asked.append(head + await reader.readexactly(length))
                if (now := self.answers.pop(0)) is not None:
                    writer.write(now)
                    if not now:
                        break
        except (asyncio.IncompleteReadError, ConnectionResetError):
            self.closed.set()
        finally:
            writer.close()

    @property
    def connections(self) -> int:
        return len(self.writers)


@dataclass
class World:
    """A connection to a peer by a channel."""

    peer: Peer
    settings: VaultSettings
    uptime: float = 0.0
    seen: Seen = field(default_factory=lambda: Seen(speaks_http=True))
    observed: list[Phase] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.channel = Channel(self.settings, lambda: self.uptime)
        self.vault = Connection(
            self.settings, FixedToken(Secret(TOKEN)), lambda phase, _: self.observed.append(phase), self.seen
        )

    async def create(self, path: str = "issued/a/1") -> bool:
        return await self.vault.create_on_loop(path, {"a": 1}, self.channel.post)


@asynccontextmanager
async def world(*answers: bytes | None) -> AsyncIterator[World]:
    peer = Peer(list(answers))
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    made = World(peer, VaultSettings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    try:
        yield made
    finally:
        made.channel.close()
        server.close()


def test_requests_share_one_connection() -> None:
    async def test() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(WRITTEN), WRITTEN)
        async with world(answer(WRITTEN, "200 OK", "x-vault-index: abc"), chunked) as it:
            metrics.reset()
            assert [await it.create(), await it.create()] == [True, True]
            assert it.peer.connections == 1
            head, _, body = it.peer.asked[1].partition(b"\r\n\r\n")
            assert head.startswith(b"POST /v1/credential-broker/data/issued/a/1 HTTP/1.1\r\nHost: 127.0.0.1:")
            assert {b"X-Vault-Token: " + TOKEN.encode(), b"X-Vault-Index: abc"} <= set(head.split(b"\r\n"))
            assert body == b'{"data": {"a": 1}, "options": {"cas": 0}}'
            assert it.observed == [Phase.BEFORE, Phase.AFTER] * 2
            assert metrics.numbers().vault == {"2xx": 2}

    run(test)


def test_a_closed_connection_is_opened_again() -> None:
    async def test() -> None:
        async with world(answer(WRITTEN, "200 OK", "Connection: close"), answer()) as it:
            assert [await it.create(), await it.create()] == [True, True]
            assert it.peer.connections == 2

    run(test)


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"220 mail.example ESMTP\r\n",
        answer()[:-3] + b"\r\n\r\nHTTP/1.1 nonsense",
        answer(b"<html>"),
        answer(b'{"data": {"version": "1"}}'),
        answer(b"[" * 50_000),
        answer(WRITTEN + b" " * 70_000),
        answer(WRITTEN, "200 OK", f"X: {'x' * 70_000}"),
        answer(WRITTEN, "201 Created"),
        answer(WRITTEN, "103 Early Hints"),
        answer(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:9/v1/elsewhere"),
        answer(b'{"errors": ["Vault is sealed"]}', "503 Service Unavailable"),
        answer(b'{"errors": ["permission denied"]}', "403 Forbidden"),
        answer(b'{"errors": ["check-and-set parameter did not match the current version"]}', "400 Bad Request"),
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=lambda odd: bytes(odd).split(b"\r\n")[0].decode()[:30] or "nothing",
)
def test_what_is_not_plain_is_not_stored(odd: bytes) -> None:
    async def test() -> None:
        async with world(odd, answer()) as it:
            assert not await it.create()
            assert it.observed == [Phase.BEFORE]
            it.uptime += 5
            assert await it.create(), "the next one is not spoilt"

    run(test)


@pytest.mark.parametrize("status", ["103 Early Hints", "201 Created", "307 Temporary Redirect", "503 Vault is sealed"])
def test_another_status_ends_the_connection(status: str) -> None:
    async def test() -> None:
        async with world(answer(WRITTEN, status)) as it:
            assert [await it.create(), await it.create()] == [False, False]
            await it.peer.closed.wait()
            assert len(it.peer.asked) == 1

    run(test)


@pytest.mark.parametrize("together", [True, False])
def test_a_surplus_answer_is_none_to_the_next(*, together: bool) -> None:
    async def test() -> None:
        async with world(answer() * (2 if together else 1), None) as it:
            assert await it.create()
            if not together:
                it.peer.writers[0].write(answer())
            await it.peer.closed.wait()
            asking = asyncio.create_task(it.create())
            while len(it.peer.asked) < 2:
                await asyncio.sleep(0.001)
            assert not asking.done()
            asking.cancel()

    run(test)


def test_a_late_answer_is_none_to_the_next() -> None:
    """The caller of the first request left before its answer came."""

    async def test() -> None:
        async with world(None, None) as it:
            leaving = asyncio.create_task(it.create())
            while not it.peer.asked:
                await asyncio.sleep(0.001)
            leaving.cancel()
            await asyncio.wait([leaving])
            it.uptime += 5
            asking = asyncio.create_task(it.create())
            while len(it.peer.asked) < 2:
                await asyncio.sleep(0.001)
            assert it.peer.connections == 2
            assert it.peer.writers[0].transport.is_closing() or it.peer.closed.is_set()
            assert not asking.done()
            asking.cancel()

    run(test)


def test_a_hanging_vault_is_not_tried_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.vault.channel._PATIENCE", 0.1)

    async def test() -> None:
        async with world(*[None] * 6, answer()) as it:
            for pause in (5, 10, 20, 40, 60, 60):
                assert [await it.create(), await it.create()] == [False, False]
                it.uptime += pause - 0.1
                assert not await it.create()
                it.uptime += 0.1
            assert len(it.peer.asked) == 6
            assert await it.create()

    run(test)


def test_no_secret_goes_where_no_vault_was_seen() -> None:
    """Only an answer without a token shows that a plain address is none of TLS."""

    async def test() -> None:
        async with world(answer()) as it:
            it.seen.speaks_http = False
            assert not await it.create()
            assert it.peer.connections == 0

    run(test)


@pytest.mark.parametrize("token", [f"{TOKEN}\r\nX-Vault-Namespace: other", f"{TOKEN}é", f"{TOKEN}\n"])
def test_a_token_makes_no_header(token: str) -> None:
    async def test() -> None:
        async with world(answer()) as it:
            it.vault.tokens = FixedToken(Secret(token))
            assert not await it.create()
            assert it.peer.asked == []

    run(test)


def test_a_unix_socket_is_used(tmp_path: Path) -> None:
    async def test() -> None:
        peer, path = Peer([answer()]), tmp_path / "vault.sock"
        server = await asyncio.start_unix_server(peer.serve, path)
        it = World(peer, VaultSettings(f"unix://{path}"))
        assert await it.create()
        assert b"\r\nHost: localhost\r\n" in peer.asked[0]
        it.channel.close()
        server.close()

    run(test)


def entry(number: int = 1, name: str = "issued/channel") -> Entry:
    return appended(name, Head(number - 1), STAMP, "bundle-issued", {"lease": "l1"})


@pytest.mark.slow
def test_evidence_of_the_channel_is_evidence(vault: TestVault) -> None:
    """What was stored by the loop is no fork if a thread stores it again, and nothing else takes its place."""

    async def test() -> None:
        channel, evidence = Channel(vault.settings), VaultEvidence(vault.admin)
        stored = [await evidence.append_on_loop(entry(), channel.post) for _ in range(2)]
        channel.close()
        assert stored == [True, False]
        await asyncio.to_thread(evidence.append, entry())
        assert evidence.kept("issued/channel").entries == (entry(),)
        with pytest.raises(ConflictError):
            await asyncio.to_thread(evidence.append, replace(entry(), hash="0" * 64))

    run(test)
