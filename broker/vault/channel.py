"""One connection from an event loop to Vault, for the request that has to be fast: the evidence of a batch (ADR 40).

urllib3 in a thread waits for the interpreter at each of its steps while the loop is busy, and keeps the loop waiting
in turn. So this posts without a thread, and does only what nearly always happens: an answer 200 on a connection that is
open. httptools parses it, as it parses requests in uvicorn. `None` stands for everything else, and the caller then
goes through `Transport`, which knows each fault by name. Sources: RFC 9112; Vault API.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

from broker import unix_socket
from broker.errors import InputError
from broker.vault.settings import VaultSettings
from broker.vault.transport import Reply, tls_context

_PATIENCE: Final = 1.0  # seconds for an answer, beside the patience of the settings
_PAUSE: Final = 5.0  # seconds without a try after a failure; twice as long after each further one
_LONGEST: Final = 60.0  # of these
_LARGEST: Final = 64 * 1024  # bytes of an answer
_FAULTS: Final = (OSError, TimeoutError, ValueError, InputError)


class Channel:
    """A connection that is kept, and opened again when it was closed. One request at a time."""

    def __init__(self, settings: VaultSettings, uptime: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._uptime = uptime
        self._connection: _Connection | None = None
        self._pause = _PAUSE
        self._paused_until = 0.0

    async def post(self, target: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        """Return Vault's answer 200; None if there is none soon: the request may have arrived all the same."""
        if self._uptime() < self._paused_until:
            return None
        reply = None
        try:
            with suppress(*_FAULTS):  # `Transport` says why
                async with asyncio.timeout(_PATIENCE):
                    connection = await self._open()
                    reply = await connection.ask(_request(target, {"Host": self._host, **headers}, body))
            return reply
        finally:
            self._note(is_good=reply is not None)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _note(self, *, is_good: bool) -> None:
        """Close a connection without a good answer, of a cancelled request too: what comes late is for nobody."""
        if is_good:
            self._pause = _PAUSE
            return
        self.close()
        self._paused_until = self._uptime() + self._pause
        self._pause = min(2 * self._pause, _LONGEST)

    @property
    def _host(self) -> str:
        return urlsplit(unix_socket.URL if self._settings.socket else self._settings.address).netloc

    async def _open(self) -> "_Connection":
        if self._connection is None or not self._connection.is_open:
            loop, address = asyncio.get_running_loop(), urlsplit(self._settings.address)
            host = address.hostname or ""
            if self._settings.socket:
                _, self._connection = await loop.create_unix_connection(_Connection, self._settings.socket)
            elif self._settings.is_plain:
                _, self._connection = await loop.create_connection(_Connection, host, address.port or 80)
            else:
                connect = partial(loop.create_connection, _Connection, host, address.port or 443)
                context = await asyncio.to_thread(tls_context, self._settings)  # it reads files
                _, self._connection = await connect(ssl=context, server_hostname=self._settings.server_name or host)
        return self._connection


class _Connection(asyncio.Protocol):
    """Sends a request, and collects its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Reply | None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0
        self._headers: list[tuple[str, str]] = []
        self._body = b""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Reply | None:
        assert self._transport, "connected"
        self._answered, self._size = asyncio.get_running_loop().create_future(), 0
        self._transport.write(request)
        try:
            return await self._answered
        finally:
            self._answered = None

    def close(self) -> None:
        """Close it; what it still says counts for nothing."""
        self._end(None)
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without its class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # `Transport` meets the same
        self._end(None)

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _LARGEST:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def on_message_begin(self) -> None:
        self._headers, self._body = [], b""
        if self._answered is None or self._answered.done():  # nobody asked
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != HTTPStatus.OK:
            self.close()
            return
        self._end(Reply(self._headers, self._body))
        if not self._parser.should_keep_alive():
            self.close()

    def _end(self, reply: Reply | None) -> None:
        if self._answered and not self._answered.done():
            self._answered.set_result(reply)


def _request(target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a POST; raise `ValueError` for what no header may have."""
    lines = [f"POST {target} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items()), f"Content-Length: {len(body)}"]
    if not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError
    return "\r\n".join([*lines, "", ""]).encode() + body
