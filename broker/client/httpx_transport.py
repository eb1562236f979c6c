"""Transports of httpx: the blocking one uses the connections of `broker.client.Session`, the other those of httpx."""

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import httpx
import urllib3
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker.client.asynchronous import Loop, exchanged
from broker.client.following import Follower
from broker.errors import BrokerError, RefusedError
from broker.model.authentication import Request
from broker.model.proxy import Proxy
from broker.model.redactor import Redactor
from broker.network import FAULTS, Deadline, ProxyError, behind
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current, Rejection, Use, rejection_of
from broker.upstream.exchange import described
from broker.upstream.response import LARGEST
from broker.upstream.session import TIMEOUT, PartnerAdapter, limits

_PIECE: Final = 64 * 1024
_OURS: Final = ("connection", "content-length", "host", "transfer-encoding")  # headers that the connection makes
_FAILURES: Final = (httpx.HTTPError, urllib3.exceptions.HTTPError, *FAULTS)
_LOST: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)  # before an answer


class Transport(httpx.BaseTransport):
    """Send requests over the connections of `broker.client.Session`."""

    def __init__(self, current: Current[PartnerAdapter], follower: Follower) -> None:
        self._current = current
        self._follower = follower

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise an error of httpx, or `RefusedError`."""
        self._follower.check()
        connect, deadline = _limits(request)
        body = _body(request)
        found = self._current.exchanged(
            lambda wire: _attempt(wire, request, body, connect, deadline), request.method, body, _close
        )
        if isinstance(found, Exception):
            raise found  # no frame here holds the signed copy, and the error has no context
        return found

    def close(self) -> None:
        """Close the connections, and give the bundle back if it is the client's own."""
        self._current.rest()
        self._follower.end()


def _attempt(
    wire: PartnerAdapter, request: httpx.Request, body: bytes | None, connect: float, deadline: Deadline
) -> tuple[httpx.Response | Exception, Rejection]:
    """Send `request`; return the answer or an error without secrets, and what it says about the set."""
    try:
        raw = wire.sent(_plain(wire.credentials, request, body), request.stream, limits(connect, deadline))
    except BrokerError as error:
        return wire.credentials.redacted(error), Rejection.NONE
    except _FAILURES as error:
        return _failure(error, request), rejection_of(error)
    headers = list(raw.headers.iteritems())
    answer = _Answer(raw.status, headers, _Bytes(raw, request), request, wire.credentials)
    return answer, rejection_of(raw.status)


class _Bytes(httpx.SyncByteStream):
    """The body of an answer."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, request: httpx.Request) -> None:
        self._raw = raw
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._raw.stream(_PIECE, decode_content=False)
        while piece := self._piece(pieces):
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        self._raw.close()
        self._raw.release_conn()

    def _piece(self, pieces: Iterator[bytes]) -> bytes | Exception:
        try:
            return next(pieces, b"")
        except _FAILURES as error:
            self._raw.close()
            return _failure(error, self._request)


class AsyncWire:
    """Connections of an event loop with one set."""

    def __init__(self, loop: Loop, credentials: Credentials) -> None:
        self.credentials = credentials
        self._loop = loop
        self._transport: httpx.AsyncHTTPTransport | None = None

    @property
    def transport(self) -> httpx.AsyncHTTPTransport:
        """The connections; made when they are first used."""
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(
                verify=self.credentials.context,
                trust_env=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                proxy=_through(self.credentials.proxy),
            )
        return self._transport

    def close(self) -> None:
        """Close the connections in their loop."""
        found, self._transport = self._transport, None
        if found:
            self._loop.close(found.aclose)


def _through(proxy: Proxy | None) -> httpx.Proxy | None:
    if proxy is None:
        return None
    url = httpx.URL(scheme="http", host=proxy.host, port=proxy.port)
    user, _, password = proxy.login.reveal().partition(":") if proxy.login else ("", "", "")
    return httpx.Proxy(url, auth=(user, password) if user else None)


class AsyncTransport(httpx.AsyncBaseTransport):
    """Send requests from an event loop."""

    def __init__(self, current: Current[AsyncWire], follower: Follower, loop: Loop) -> None:
        self._current = current
        self._follower = follower
        self._loop = loop

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise an error of httpx, or `RefusedError`."""
        self._loop.enter()
        self._follower.check()
        connect, deadline = _limits(request)
        body = _body(request)

        async def attempt(use: Use[AsyncWire]) -> tuple[httpx.Response | Exception, Rejection]:
            return await _attempt_async(use, partial(self._current.back, use), (request, body), (connect, deadline))

        found = await exchanged(self._current, attempt, request.method, body, _aclose)
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        """Close the connections, and give the bundle back if it is the client's own."""
        await asyncio.to_thread(self._follower.end)
        self._current.rest()
        await self._loop.closed()


async def _attempt_async(
    use: Use[AsyncWire],
    back: Callable[[], None],
    sent: tuple[httpx.Request, bytes | None],
    limited: tuple[float, Deadline],
) -> tuple[httpx.Response | Exception, Rejection]:
    """Send a request; return the answer, which gives the set back when it is closed, or an error without secrets."""
    (request, body), (connect, deadline), credentials, keeps = sent, limited, use.credentials, False
    try:
        signed = credentials.signed(_plain(credentials, request, body))
        copy = httpx.Request(
            request.method,
            signed.url,
            headers={**signed.headers, **{k: v for k, v in request.headers.items() if k in _OURS}},
            stream=request.stream if body is None or signed.body == body else httpx.ByteStream(signed.body or b""),
            extensions={"timeout": {"connect": connect, "read": None, "write": None, "pool": None}},
        )
        async with asyncio.timeout(deadline.left):
            raw = await use.wire.transport.handle_async_request(copy)
        stream = _AsyncBytes(raw, request, deadline, back)
        answer = _Answer(raw.status_code, raw.headers.raw, stream, request, credentials)
        keeps = True
    except BrokerError as error:
        return credentials.redacted(error), Rejection.NONE
    except _FAILURES as error:
        rejection = rejection_of(error)
        lost = rejection is Rejection.NONE and isinstance(error, _LOST)
        return _failure(error, request), Rejection.CLOSED if lost else rejection
    finally:
        if not keeps:
            back()
    return answer, rejection_of(raw.status_code)


class _AsyncBytes(httpx.AsyncByteStream):
    """The body of an answer, by its deadline."""

    def __init__(
        self, raw: httpx.Response, request: httpx.Request, deadline: Deadline, back: Callable[[], None]
    ) -> None:
        self._raw = raw
        self._request = request
        self._deadline = deadline
        self._back = weakref.finalize(self, back)  # once
        self._back.atexit = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = self._raw.aiter_raw()
        while piece := await self._piece(pieces):
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        """End the exchange."""
        try:
            await self._raw.aclose()
        finally:
            self._back()

    async def _piece(self, pieces: AsyncIterator[bytes]) -> bytes | Exception:
        try:
            async with asyncio.timeout(self._deadline.left):
                return await anext(pieces, b"")
        except _FAILURES as error:
            return _failure(error, self._request)


class _Answer(httpx.Response):
    """The partner's answer. Its errors quote nothing that the partner wrote."""

    def __init__(
        self, status: int, headers: Any, stream: Any, request: httpx.Request, credentials: Credentials
    ) -> None:
        super().__init__(status, headers=headers, stream=stream, request=request)
        self._redactor: Callable[[], Redactor] = credentials.redactor
        self._limited = False
        if self.has_redirect_location:
            self._normalize_location(credentials, str(request.url))

    def read(self) -> bytes:
        """Return the body; raise `httpx.ReadError` for one larger than 64 MiB."""
        self._limited = True
        return super().read()

    async def aread(self) -> bytes:
        """Return the body; raise `httpx.ReadError` for one larger than 64 MiB."""
        self._limited = True
        return await super().aread()

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the body in pieces."""
        count = 0
        for piece in super().iter_bytes(chunk_size):
            count = self._counted(count, piece)
            yield piece

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Yield the body in pieces."""
        count = 0
        async for piece in super().aiter_bytes(chunk_size):
            count = self._counted(count, piece)
            yield piece

    def json(self, **kwargs: Any) -> Any:
        """Return the body as JSON; raise a `json.JSONDecodeError` that does not hold the body."""
        with suppress(ValueError, RecursionError):
            return super().json(**kwargs)
        raise json.JSONDecodeError("the answer is not JSON", "", 0)

    def raise_for_status(self) -> "_Answer":
        """Raise `httpx.HTTPStatusError` for a status that is no success, without the partner's reason phrase."""
        if not self.is_success:
            url = self._redactor().redact(str(self.request.url))
            text = f"the partner answered {self.status_code} for {url}"
            raise httpx.HTTPStatusError(text, request=self.request, response=self)
        return self

    def _counted(self, count: int, piece: bytes) -> int:
        if self._limited and count + len(piece) > LARGEST:
            raise httpx.ReadError(f"the answer is larger than {LARGEST} bytes; stream it", request=self.request)
        return count + len(piece)

    def _normalize_location(self, credentials: Credentials, here: str) -> None:
        """Take our client_id out of a redirect, since httpx logs where it goes; drop one that is no URL."""
        href = self.headers["Location"]
        try:
            self.headers["Location"] = credentials.link(href, here)
        except RefusedError:
            try:
                httpx.URL(href)
            except httpx.InvalidURL:
                del self.headers["Location"]


def _limits(request: httpx.Request) -> tuple[float, Deadline]:
    """Return the seconds to connect, and the deadline of a whole exchange: the time-out for reading."""
    given: Mapping[str, float | None] = request.extensions.get("timeout", {})
    return given.get("connect") or TIMEOUT[0], Deadline(given.get("read") or TIMEOUT[1])


def _body(request: httpx.Request) -> bytes | None:
    """Return the body, or None for a stream, which is sent once."""
    return b"".join(request.stream) if isinstance(request.stream, httpx.ByteStream) else None


def _plain(credentials: Credentials, request: httpx.Request, body: bytes | None) -> Request:
    headers = {name: value for name, value in request.headers.items() if name == "host" or name not in _OURS}
    url = credentials.target(str(request.url.copy_with(fragment=None)))
    return Request(request.method, url, headers, body)


def _failure(error: Exception, request: httpx.Request) -> httpx.RequestError:
    """Return `error` as an error of httpx whose text quotes nothing."""
    inner = list(behind(error))
    if any(isinstance(found, ProxyError | httpx.ProxyError) for found in inner):
        text = (
            described(error)
            if any(isinstance(found, ProxyError) for found in inner)
            else "the proxy gave no connection"
        )
        return httpx.ProxyError(text, request=request)
    if any(isinstance(found, ConnectTimeoutError | httpx.ConnectTimeout) for found in inner):
        return httpx.ConnectTimeout("no answer in time", request=request)
    if any(isinstance(found, TimeoutError | httpx.TimeoutException) for found in inner):
        return httpx.ReadTimeout("no answer in time", request=request)
    if isinstance(error, httpx.ConnectError) or any(isinstance(found, NewConnectionError) for found in inner):
        return httpx.ConnectError(described(error), request=request)
    return httpx.ReadError(described(error), request=request)


def _close(found: httpx.Response | Exception) -> None:
    if isinstance(found, httpx.Response):
        found.close()


async def _aclose(found: httpx.Response | Exception) -> None:
    if isinstance(found, httpx.Response):
        await found.aclose()
