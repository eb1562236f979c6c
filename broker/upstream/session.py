"""A `requests` session that holds one set, and replaces it as a whole."""

import queue
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final, NoReturn

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker.errors import BrokerError, RefusedError
from broker.model.authentication import Request
from broker.model.proxy import Proxy
from broker.network import Deadline, InTime, connected
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current, Rejection, rejection_of
from broker.upstream.response import FAILURES, PartnerResponse, failure

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds for the whole exchange
_PIECE: Final = 16 * 1024  # bytes sent between two checks of the deadline
REDIRECTS: Final = 5  # each is a separate exchange


class PartnerSession(requests.Session):
    """Call the partner with mTLS and its authentication, under the account's base URL and nowhere else.

    A path such as `/fleets` is below the base URL. A redirect out of it raises `RefusedError`; so do `verify=`, `cert=`
    and proxies, since the set alone identifies server and client. If the partner rejects the set and there is a newer
    one, the request is sent once more with that. No caller, hook or exception sees a secret. Errors are those of
    requests, with texts of ours. `timeout` is (seconds to connect, seconds for the whole exchange): nothing the partner
    sends extends it. Threads may share it as far as they may share a `requests.Session`.
    """

    def __init__(self, credentials: Credentials, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE and .netrc would add to the set
        self.headers.update(headers_of(credentials))
        self.max_redirects = REDIRECTS
        self.current = Current(credentials, PartnerAdapter)
        self._partner = _Partner(self.current, timeout)

    @property
    def base_url(self) -> str:
        """The URL that paths are below."""
        return self.current.credentials.base_url

    def swap(self, credentials: Credentials) -> None:
        """Use `credentials` from the next request on. Requests in flight keep theirs.

        Raise `RefusedError` for a set of another base URL: that is another account.
        """
        self.current.swap(credentials)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; `url` is a path below the base URL, or a link that the partner sent."""
        text = url.decode(errors="replace") if isinstance(url, bytes) else url
        return super().request(method, self.current.credentials.target(text), *args, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the target of a redirect; raise `RefusedError`, which does not quote it, if it leaves the base URL."""
        if not resp.is_redirect:
            return None
        try:
            return self.link(resp.headers["Location"].encode("latin-1", "replace").decode(errors="replace"), resp.url)
        except RefusedError:
            with suppress(requests.RequestException):
                _ = resp.content  # releases the connection, as requests does before it follows
            raise

    def resolve_redirects(self, resp: requests.Response, req: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Follow redirects; with `allow_redirects=False` a redirect out of the base URL is an ordinary answer."""
        with suppress(RefusedError) if kwargs.get("yield_requests") else nullcontext():
            yield from super().resolve_redirects(resp, req, *args, **kwargs)

    def link(self, href: str, here: str) -> str:
        """Return the URL of a link in the answer to `here`; raise `RefusedError` unless it is below the base URL."""
        return self.current.credentials.link(href, here)

    def get_adapter(self, url: str | bytes) -> BaseAdapter:  # noqa: ARG002  # there is only one
        """Return the only adapter, which refuses URLs that are not below the base URL."""
        return self._partner

    def close(self) -> None:
        """Close idle connections."""
        super().close()
        self._partner.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a session holds secrets, so it cannot be pickled or copied")


class _Partner(BaseAdapter):
    """Send requests with the set in use, and with a newer one if the partner rejects it."""

    def __init__(self, current: "Current[PartnerAdapter]", timeout: tuple[float, float]) -> None:
        super().__init__()
        self._current = current
        self._timeout = timeout

    def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
        """Send `request`; raise an error of requests, or `RefusedError`."""
        if options.get("verify", True) is not True or options.get("cert") or options.get("proxies"):
            raise RefusedError(
                "verify, cert and proxies cannot be chosen: the set identifies server and client", hint="leave them out"
            )
        connect, whole = _timeout_of(options.get("timeout"), self._timeout)
        stream, deadline = bool(options.get("stream")), Deadline(whole)
        result = self._current.exchanged(
            lambda wire: wire.attempt(request, stream, connect, deadline),
            request.method or "GET",
            _body(request),
            _close,
        )
        if isinstance(result, requests.Response):
            return result
        raise result  # no frame here holds the signed copy, and the error has no context

    def close(self) -> None:
        """Close idle connections."""
        self._current.rest()


class PartnerAdapter(HTTPAdapter):
    """Connections with one set. Secrets are added to a copy, last: hooks, redirects and responses never see them."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, with our context and connections."""
        super().init_poolmanager(*args, ssl_context=self.credentials.context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": partial(_Pool, through=self.credentials.proxy)}

    def close(self) -> None:
        """Close idle connections. The pools close those in use when they come back."""
        for key in self.poolmanager.pools.keys():  # noqa: SIM118  # no mapping
            self.poolmanager.pools[key].close()
        super().close()

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        """Return the host alone, so that the pool's context stays: urllib3 would load the CAs of requests into it."""
        return super().build_connection_pool_key_attributes(request, verify=True)[0], {}

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Add nothing: requests would load its CA bundle into the pinned context."""

    def attempt(
        self, request: requests.PreparedRequest, stream: bool, connect: float, deadline: Deadline
    ) -> tuple[requests.Response | Exception, Rejection]:
        """Send `request`; return the answer or an error without secrets, and what it says about the set."""
        try:
            response = super().send(self._signed(request), stream=stream, timeout=limits(connect, deadline))
        except BrokerError as error:
            return self.credentials.redacted(error), Rejection.NONE
        except FAILURES as error:
            return failure(error, request), rejection_of(error)
        response.raw.url = request.path_url
        return PartnerResponse(response, request, self.credentials.redactor), rejection_of(response.status_code)

    def sent(self, request: Request, stream: Any, timeout: Any) -> urllib3.BaseHTTPResponse:
        """Send a copy of `request` with the authentication; return the head of the answer; raise errors of urllib3.

        `stream` is the body, if that is not bytes.
        """
        signed = self.credentials.signed(request)
        pool = self.poolmanager.connection_from_url(self.credentials.base_url)
        raw: urllib3.BaseHTTPResponse = pool.urlopen(
            request.method,
            request.target,
            body=stream if request.body is None else signed.body,
            headers=_Signed(signed),
            retries=False,
            redirect=False,
            timeout=timeout,
            preload_content=False,
            decode_content=False,
        )
        return raw

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url, body = self.credentials.target(request.url or ""), _body(request)
        made = self.credentials.signed(Request(request.method or "GET", url, dict(request.headers), body))
        signed = request.copy()
        signed.url, signed.headers = url, _Signed(made)
        if made.body != body:
            signed.body = made.body
            signed.prepare_content_length(made.body)
        return signed


def _close(result: requests.Response | Exception) -> None:
    if isinstance(result, requests.Response):
        result.close()


def headers_of(credentials: Credentials) -> dict[str, str]:
    """Return the headers that a session adds to each request, unless its caller gives others."""
    return {"Accept": credentials.authentication.accept, "User-Agent": "credential-broker"}


def limits(connect: float, deadline: Deadline) -> Any:  # the stubs of requests do not know `Timeout`
    """Return the limits of an exchange; raise `TimeoutError` if there is no time left."""
    left = deadline.left
    return urllib3.Timeout(connect=min(connect, left), read=left, total=left)


def _body(request: requests.PreparedRequest) -> bytes | None:
    """Return the body, or None for a stream."""
    body: object = request.body or b""  # typeshed omits streams
    return body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else None


def _timeout_of(given: Any, default: tuple[float, float]) -> tuple[float, float]:
    """Return `given`, a time-out as requests takes it, as seconds to connect and for a whole exchange."""
    if isinstance(given, urllib3.Timeout):
        given = (given.connect_timeout, given.read_timeout)
    pair = given if isinstance(given, tuple) else (given, given)
    connect, whole = (one if isinstance(one, int | float) and one else d for one, d in zip(pair, default, strict=True))
    return connect, whole


class _Signed(CaseInsensitiveDict[str]):
    """The headers of a signed request. They carry its target too: urllib3 logs the one that it gets."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.headers)
        self.target = request.target

    def copy(self) -> "_Signed":
        """Return the headers with their target: urllib3 copies them."""
        return self


class _Response(InTime):
    def begin(self) -> None:
        """Read the head, and drop its malformed lines: urllib3 would log them, with the URL."""
        super().begin()
        self.headers.defects.clear()
        self.headers.set_payload("")


class _Connection(HTTPSConnection):
    response_class = _Response

    def __init__(self, *args: Any, through: Proxy | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._through = through

    def _new_conn(self) -> socket.socket:
        try:
            return connected(self.host, self.port, Deadline(float(self.timeout or 0)), self._through)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(self, type(error).__name__) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request within the time allowed for connecting."""
        self._sent_by = Deadline(float(self.timeout or 0))
        self._headers = kwargs["headers"]
        super().request(*args, **kwargs)

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  # replaced
        """Send the request line, with the target of the signed request in place of `url`."""
        super().putrequest(method, self._headers.target, *args, **kwargs)

    def send(self, data: Any) -> None:
        """Send `data` by the deadline, even if the partner reads single bytes."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self.sock.settimeout(self._sent_by.left)
            super().send(view[start : start + _PIECE])


class _Pool(urllib3.HTTPSConnectionPool):
    """Connections to one partner with deadlines."""

    ConnectionCls = _Connection

    def _put_conn(self, conn: Any) -> None:
        """Keep a connection, or close it if there are enough, or if the pool was closed: urllib3 fails in between."""
        kept = self.pool
        with suppress(queue.Full):
            if kept is not None:
                kept.put(conn, block=False)
                if self.pool is not None:
                    return
        if conn:
            conn.close()
