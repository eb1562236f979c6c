"""The session for aiohttp on a bundle, which follows its rotation.

import broker.client.aiohttp

async with broker.client.aiohttp.open("/run/credential-broker/mzp-1/reports") as session:
    async with session.get("/fleets") as response:
        await response.json()

It needs `pip install 'credential-broker[aiohttp]'`. Errors are those of `broker.client`, and those of aiohttp with
texts of ours.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Unpack

try:
    import aiohttp
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL
except ModuleNotFoundError as error:
    lacks = f"broker.client.aiohttp needs {error.name}, of the extra aiohttp: pip install 'credential-broker[aiohttp]'"
    raise ModuleNotFoundError(lacks, name=error.name) from None

from broker.client.asynchronous import Loop, exchanged
from broker.client.following import Directory, Follower, Following
from broker.client.leased import Options, leased
from broker.client.paging import Pages, checked
from broker.errors import BrokerError, RefusedError
from broker.model.authentication import Request
from broker.model.proxy import Proxy
from broker.network import FAULTS, Deadline, proxy_refusal
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current, Rejection, Use, rejection_of
from broker.upstream.exchange import described
from broker.upstream.response import LARGEST
from broker.upstream.session import REDIRECTS, TIMEOUT, headers_of

# Arguments of aiohttp that choose the server, its verification, or the way there
_CHOSEN: Final = frozenset(
    {"fingerprint", "proxy", "proxy_auth", "proxy_headers", "server_hostname", "ssl", "ssl_context", "verify_ssl"}
)
_MOVED: Final = (301, 302, 303, 307, 308)
_PIECE: Final = 64 * 1024
_FAILURES: Final = (aiohttp.ClientError, *FAULTS)
_LOST: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)  # before an answer


class Session(Following):
    """Calls the partner over aiohttp. Paths such as `/fleets` are below the account's base URL.

    Its methods take the arguments of an `aiohttp.ClientSession` that concern the request, and return its responses.
    `timeout` is (seconds to connect, seconds for the whole exchange). It behaves as `broker.client.Session`, but
    follows redirects of GET and HEAD only.
    """

    def __init__(self, follower: Follower, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._loop = Loop()
        self.current: Current[_Wire] = Current(follower.credentials, partial(_Wire, self._loop))
        self._timeout = timeout
        self._begin(follower)

    def request(self, method: str, url: str, **kwargs: Any) -> "Pending":
        """Send a request; `url` is a path below the base URL, or a link that the partner sent."""
        return Pending(self._followed(method.upper(), url, **kwargs))

    def get(self, url: str, **kwargs: Any) -> "Pending":
        """Send a GET."""
        return self.request("GET", url, **kwargs)

    def head(self, url: str, **kwargs: Any) -> "Pending":
        """Send a HEAD."""
        return self.request("HEAD", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> "Pending":
        """Send a POST."""
        return self.request("POST", url, **kwargs)

    def put(self, url: str, **kwargs: Any) -> "Pending":
        """Send a PUT."""
        return self.request("PUT", url, **kwargs)

    def patch(self, url: str, **kwargs: Any) -> "Pending":
        """Send a PATCH."""
        return self.request("PATCH", url, **kwargs)

    def delete(self, url: str, **kwargs: Any) -> "Pending":
        """Send a DELETE."""
        return self.request("DELETE", url, **kwargs)

    async def pages(self, path: str, **kwargs: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of a list, following `_links.next` to the end (HAL).

        Raise `aiohttp.ClientResponseError` for an error status, `RefusedError` for a link out of the base URL, and
        `PartnerUnavailableError` for a page that is not a JSON object, or a link to an earlier page.
        """
        seen = Pages()
        url = path
        while url:
            async with self.get(url, **kwargs) as response:
                response.raise_for_status()
                found = None
                with suppress(ValueError):
                    found = await response.json()
                document, here = checked(found, response.status), str(response.url)
            yield document
            kwargs.pop("params", None)  # the link holds them
            url = seen.after(document, self.current.credentials, here)

    async def close(self) -> None:
        """Close the connections, and give the bundle back if it is the session's own."""
        await asyncio.to_thread(self._follower.end)
        self.current.rest()
        await self._loop.closed()

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _followed(
        self, method: str, url: str, *, allow_redirects: bool = True, timeout: Any = None, **kwargs: Any
    ) -> "Answer":
        """Send a request, and follow redirects below the base URL."""
        if chosen := _CHOSEN & kwargs.keys():
            message = f"{', '.join(sorted(chosen))} cannot be chosen: the set identifies server and client"
            raise RefusedError(message, hint="leave it out; open and connect take proxy")
        self._loop.enter()
        self._follower.check()
        limits, target = _limits(timeout, self._timeout), self.current.credentials.target(url)
        for _ in range(REDIRECTS + 1):
            answer = await self._sent(method, target, limits, kwargs)
            href = answer.headers.get("Location", "") if answer.status in _MOVED else ""
            if not (href and allow_redirects and method in ("GET", "HEAD")):
                return answer
            answer.close()
            target = self.current.credentials.link(href, target)
            kwargs.pop("params", None)
        raise aiohttp.TooManyRedirects(answer.request_info, (answer,))

    async def _sent(self, method: str, url: str, limits: tuple[float, float], kwargs: dict[str, Any]) -> "Answer":
        connect, deadline, body = limits[0], Deadline(limits[1]), _body(kwargs)

        async def attempt(use: Use[_Wire]) -> "tuple[Answer | Exception, Rejection]":
            back = partial(self.current.back, use)
            try:
                total = deadline.left
            except TimeoutError as error:
                back()
                return _failure(error), Rejection.NONE
            limits = aiohttp.ClientTimeout(total=total, connect=min(connect, total))
            sign = partial(use.wire.sign, body)
            return await use.wire.attempt(method, url, {**kwargs, "timeout": limits, "middlewares": (sign,)}, back)

        found = await exchanged(self.current, attempt, method, body, _aclose)
        if isinstance(found, Exception):
            raise found  # no frame here holds the signed copy, and the error has no context
        return found


class Pending:
    """A request that is sent when it is awaited; with `async with`, the answer is closed at the end."""

    def __init__(self, sending: "Coroutine[Any, Any, Answer]") -> None:
        self._sending = sending

    def __await__(self) -> "Generator[Any, Any, Answer]":
        return self._sending.__await__()

    async def __aenter__(self) -> "Answer":
        self._answer = await self._sending
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answer.release()


def open(  # noqa: A001  # broker.client.aiohttp.open
    directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT, proxy: str = "", proxy_login: str = ""
) -> Session:
    """Return a session on the bundle published in `directory`, as `broker.client.open` does."""
    return Session(Directory(directory, proxy, proxy_login), timeout=timeout)


def connect(application: str, *, timeout: tuple[float, float] = TIMEOUT, **options: Unpack[Options]) -> Session:
    """Return a session on a bundle of ACCOUNT/APPLICATION from the service. It blocks for one request to that."""
    return Session(leased(application, options), timeout=timeout)


class _Wire:
    """Connections of an event loop with one set."""

    def __init__(self, loop: Loop, credentials: Credentials) -> None:
        self.credentials = credentials
        self._loop = loop
        self._session: aiohttp.ClientSession | None = None

    async def attempt(
        self, method: str, url: str, options: dict[str, Any], back: Callable[[], None]
    ) -> "tuple[Answer | Exception, Rejection]":
        """Send a request; return the answer, which calls `back` at its end, or an error without secrets."""
        answer: Any = None  # of our class, though aiohttp does not say so
        try:
            session = self._opened()
            answer = await session.request(
                method, URL(url, encoded=True), allow_redirects=False, **_through(self.credentials.proxy), **options
            )
        except BrokerError as error:
            return self.credentials.redacted(error), Rejection.NONE
        except _FAILURES as error:
            lost = isinstance(error.__cause__, _LOST)
            rejection = rejection_of(error)
            return _failure(error), Rejection.CLOSED if lost and rejection is Rejection.NONE else rejection
        finally:
            if answer and answer.connection:
                answer.connection.add_callback(back)
            else:
                back()
        return answer, rejection_of(answer.status)

    def close(self) -> None:
        """Close the connections in their loop."""
        found, self._session = self._session, None
        if found:
            self._loop.close(found.close)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self.credentials.context, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers_of(self.credentials),
                response_class=Answer,
            )
        return self._session

    async def sign(
        self, body: bytes | None, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Add the authentication last. A connection that is lost is not tried again, as aiohttp would."""
        url = self.credentials.target(str(request.url))
        signed = self.credentials.signed(Request(request.method, url, dict(request.headers), body))
        request.url = URL(signed.url, encoded=True)
        request.headers.update(signed.headers)
        if signed.body != body:
            await request.update_body(signed.body)
        try:
            return await send(request)
        except _LOST as error:
            raise aiohttp.ClientConnectionError from error


class Answer(aiohttp.ClientResponse):
    """The partner's answer. Its errors quote nothing that the partner wrote."""

    def __init__(self, method: str, url: URL, **kwargs: Any) -> None:
        none = CIMultiDictProxy[str](CIMultiDict())
        kwargs["request_info"] = aiohttp.RequestInfo(url, method, none, url)  # that of the signed copy has secrets
        super().__init__(method, url, **kwargs)

    async def read(self) -> bytes:
        """Return the body; raise `aiohttp.ClientPayloadError` for one that is incomplete or larger than 64 MiB."""
        found = await self._whole()
        if isinstance(found, Exception):
            raise found
        return found

    async def json(self, **kwargs: Any) -> Any:
        """Return the body as JSON of any media type; raise a `json.JSONDecodeError` that does not hold the body."""
        await self.read()
        with suppress(ValueError, RecursionError):
            return await super().json(**{"content_type": None, **kwargs})
        raise json.JSONDecodeError("the answer is not JSON", "", 0)

    def raise_for_status(self) -> None:
        """Raise `aiohttp.ClientResponseError` for a status of 400 or more, without the partner's reason phrase."""
        if not self.ok:
            text = f"the partner answered {self.status} for {self.url}"
            raise aiohttp.ClientResponseError(self.request_info, (), status=self.status, message=text)

    def __repr__(self) -> str:
        return f"<Answer [{self.status}]>"

    async def _whole(self) -> bytes | Exception:
        try:
            if self._body is None:
                count, pieces = 0, []
                async for piece in self.content.iter_chunked(_PIECE):
                    count += len(piece)
                    pieces.append(piece)
                    if count > LARGEST:
                        self.close()
                        return aiohttp.ClientPayloadError(f"the answer is larger than {LARGEST} bytes; stream it")
                self._body = b"".join(pieces)
            return await super().read()
        except _FAILURES as error:
            if self.connection and self.connection.transport:
                self.connection.transport.abort()  # the end of TLS would be waited for
            self.close()
            lost = aiohttp.ClientPayloadError("the answer is incomplete")
            return _failure(error) if isinstance(error, TimeoutError) else lost


def _through(proxy: Proxy | None) -> dict[str, Any]:
    """Return the arguments that send a request through `proxy`."""
    if proxy is None:
        return {}
    login = b64encode(proxy.login.reveal().encode()).decode() if proxy.login else ""
    headers = {"Proxy-Authorization": f"Basic {login}"} if login else {}
    return {"proxy": URL.build(scheme="http", host=proxy.host, port=proxy.port), "proxy_headers": headers}


def _limits(given: Any, default: tuple[float, float]) -> tuple[float, float]:
    """Return a time-out, as requests or aiohttp take it, as seconds to connect and for a whole exchange."""
    if isinstance(given, aiohttp.ClientTimeout):
        given = (given.connect or given.sock_connect, given.total)
    pair = given if isinstance(given, tuple) else (given, given)
    return pair[0] or default[0], pair[1] or default[1]


def _body(kwargs: dict[str, Any]) -> bytes | None:
    """Make bytes of a body in `kwargs`, and return it; None for one that cannot be sent twice."""
    if kwargs.get("json") is not None:
        kwargs["data"] = json.dumps(kwargs.pop("json")).encode()
        kwargs["headers"] = {"Content-Type": "application/json", **(kwargs.get("headers") or {})}
    data = kwargs.get("data", b"")
    return data.encode() if isinstance(data, str) else data if isinstance(data, bytes) else None


def _failure(error: Exception) -> aiohttp.ClientError:
    """Return `error` as an error of aiohttp whose text quotes nothing."""
    if isinstance(error, TimeoutError):
        return aiohttp.ServerTimeoutError("no answer in time")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return aiohttp.ClientConnectionError(proxy_refusal(error.status))
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return aiohttp.ClientConnectionError("the proxy cannot be reached")
    if isinstance(error.__cause__, aiohttp.ServerDisconnectedError):
        return aiohttp.ClientConnectionError("the server closed the connection without an answer")
    return aiohttp.ClientConnectionError(described(error))


async def _aclose(found: "Answer | Exception") -> None:
    if isinstance(found, Answer):
        found.close()
