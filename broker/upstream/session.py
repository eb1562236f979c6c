"""A `requests` session that holds one set, and replaces it as a whole."""

import re
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final, NoReturn
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker.errors import BrokerError, RefusedError
from broker.model.authentication import Request
from broker.model.proxy import Proxy
from broker.network import Deadline, InTime, connected
from broker.partners.request import inside, join
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current, Rejection, Use, may_repeat, rejection_of
from broker.upstream.response import FAILURES, PartnerResponse, failure

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds for the whole exchange
_ORIGIN: Final = re.compile(r"\w+://[^/?#]*")
_PIECE: Final = 16 * 1024  # bytes sent between two checks of the deadline
_REDIRECTS: Final = 5  # each is a separate exchange


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
        self.headers["Accept"] = credentials.authentication.accept
        self.headers["User-Agent"] = "credential-broker"
        self.max_redirects = _REDIRECTS
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
        target = join(self.base_url, text) if text.startswith("/") else inside(self.base_url, _lowered(text))
        return super().request(method, target, *args, **kwargs)

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
        try:
            found = urljoin(here, href)
        except ValueError:
            found = ""
        return inside(self.base_url, _lowered(found.partition("#")[0]))

    def get_adapter(self, url: str | bytes) -> BaseAdapter:  # noqa: ARG002  # there is only one
        """Return the only adapter, which refuses URLs that are not below the base URL."""
        return self._partner

    def close(self) -> None:
        """Close idle connections."""
        super().close()
        self._partner.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a session holds secrets, so it cannot be pickled or copied")


def _lowered(url: str) -> str:
    """Return `url` with scheme and host in lower case."""
    origin = _ORIGIN.match(url)
    return origin[0].lower() + url[origin.end() :] if origin else url


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
        stream, (connect, whole) = bool(options.get("stream")), _timeout_of(options.get("timeout"), self._timeout)
        deadline = Deadline(whole)
        result, use, rejection = self._sent(request, stream, (connect, whole))
        if self._current.has_newer(use, rejection) and may_repeat(rejection, request.method or "GET", _body(request)):
            if isinstance(result, requests.Response):
                result.close()
            with suppress(TimeoutError):  # the time is over: the first answer stands
                result = self._sent(request, stream, (connect, deadline.left))[0]
        if isinstance(result, requests.Response):
            return result
        raise result  # no frame here holds the signed copy, and the error has no context

    def close(self) -> None:
        """Close idle connections."""
        self._current.rest()

    def _sent(
        self, request: requests.PreparedRequest, stream: bool, timeout: tuple[float, float]
    ) -> "tuple[requests.Response | Exception, Use[PartnerAdapter], Rejection]":
        use = self._current.lend()
        try:
            result, rejection = use.wire.attempt(request, stream, timeout)
        finally:
            self._current.back(use)
        return result, use, rejection


class PartnerAdapter(HTTPAdapter):
    """Connections with one set. Secrets are added to a copy, last: hooks, redirects and responses never see them."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, with our context and connections."""
        super().init_poolmanager(*args, ssl_context=self.credentials.context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": partial(_Pool, through=self.credentials.proxy)}

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        """Return the host alone, so that the pool's context stays: urllib3 would load the CAs of requests into it."""
        return super().build_connection_pool_key_attributes(request, verify=True)[0], {}

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Add nothing: requests would load its CA bundle into the pinned context."""

    def attempt(
        self, request: requests.PreparedRequest, stream: bool, timeout: tuple[float, float]
    ) -> tuple[requests.Response | Exception, Rejection]:
        """Send `request`; return the answer or an error without secrets, and what it says about the set."""
        limits: Any = urllib3.Timeout(connect=timeout[0], read=timeout[1], total=timeout[1])  # not in the stubs
        try:
            response = super().send(self._signed(request), stream=stream, timeout=limits)
        except BrokerError as error:  # without its frames
            clean = type(error)(self.credentials.redactor().redact(error.message), hint=error.hint)
            return clean, Rejection.NONE
        except FAILURES as error:
            return failure(error, request), rejection_of(error)
        response.raw.url = request.path_url
        return PartnerResponse(response, request, self.credentials.redactor), rejection_of(response.status_code)

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url, body = inside(self.credentials.base_url, request.url or ""), _body(request)
        made = self.credentials.signed(Request(request.method or "GET", url, dict(request.headers), body))
        signed = request.copy()
        signed.url = made.url
        signed.headers.update(made.headers)
        if made.body != body:
            signed.body = made.body
            signed.prepare_content_length(made.body)
        return signed


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
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        """Send `data` by the deadline, even if the partner reads single bytes."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self.sock.settimeout(self._sent_by.left)
            super().send(view[start : start + _PIECE])


class _Pool(urllib3.HTTPSConnectionPool):
    """Connections to one partner with deadlines."""

    ConnectionCls = _Connection
