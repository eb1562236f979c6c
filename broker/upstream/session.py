"""A `requests` session that holds one set, and replaces it as a whole."""

import re
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any, Final, NoReturn
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker.errors import BrokerError, RefusedError
from broker.model.authentication import Request
from broker.network import Deadline, InTime, connected
from broker.partners.request import inside, join
from broker.upstream.credentials import Credentials
from broker.upstream.response import FAILURES, PartnerResponse, failure

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds for the whole exchange
_ORIGIN: Final = re.compile(r"\w+://[^/?#]*")
_PIECE: Final = 16 * 1024  # bytes sent between two checks of the deadline
_REDIRECTS: Final = 5  # each is a separate exchange


class PartnerSession(requests.Session):
    """Call the partner with mTLS and its authentication, under the account's base URL and nowhere else.

    A path such as `/fleets` is below the base URL. A redirect out of it raises `RefusedError`; so do `verify=`, `cert=`
    and proxies, since the set alone identifies server and client. Nothing is retried. No caller, hook or exception sees
    a secret. Errors are those of requests, with texts of ours. `timeout` is (seconds to connect, seconds for the whole
    exchange): nothing the partner sends extends it. Threads may share it as far as they may share a `requests.Session`.
    """

    def __init__(self, credentials: Credentials, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE and .netrc would add to the set
        self.headers["Accept"] = credentials.authentication.accept
        self.headers["User-Agent"] = "credential-broker"
        self.max_redirects = _REDIRECTS
        self._timeout = timeout
        self._partner = _PartnerAdapter(credentials, timeout)

    @property
    def base_url(self) -> str:
        """The URL that paths are below."""
        return self._partner.credentials.base_url

    def swap(self, credentials: Credentials) -> None:
        """Use `credentials` from the next request on. Requests in flight keep theirs.

        Raise `RefusedError` for a set of another base URL: that is another account.
        """
        if credentials.base_url != self.base_url:
            raise RefusedError("a session keeps its base URL", hint="open another session for another account")
        # The old adapter closes its idle connections when the last request has released it.
        self._partner = _PartnerAdapter(credentials, self._timeout)

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

    def get_adapter(self, url: str | bytes) -> HTTPAdapter:  # noqa: ARG002  # there is only one
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


class _PartnerAdapter(HTTPAdapter):
    """Send requests with one set. Secrets are added to a copy, last: hooks, redirects and responses never see them."""

    def __init__(self, credentials: Credentials, timeout: tuple[float, float]) -> None:
        self.credentials = credentials
        self._timeout = timeout
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self.credentials.context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        """Return the host alone, so that the pool's context stays: urllib3 would load the CAs of requests into it."""
        return super().build_connection_pool_key_attributes(request, verify=True)[0], {}

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Add nothing: requests would load its CA bundle into the pinned context."""

    def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
        if options.get("verify", True) is not True or options.get("cert") or options.get("proxies"):
            raise RefusedError(
                "verify, cert and proxies cannot be chosen: the set identifies server and client", hint="leave them out"
            )
        result = self._attempt(request, options)
        if isinstance(result, requests.Response):
            return result
        raise result  # no frame here holds the signed copy, and the error has no context

    def _attempt(self, request: requests.PreparedRequest, options: dict[str, Any]) -> requests.Response | Exception:
        try:
            whole: Any = _timeout_of(options.get("timeout"), self._timeout)  # the stubs know no `Timeout`
            response = super().send(self._signed(request), stream=options.get("stream", False), timeout=whole)
        except BrokerError as error:
            return type(error)(self.credentials.redactor().redact(error.message), hint=error.hint)  # without its frames
        except FAILURES as error:
            return failure(error, request)
        response.raw.url = request.path_url
        return PartnerResponse(response, request, self.credentials.redactor)

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


def _timeout_of(given: Any, default: tuple[float, float]) -> urllib3.Timeout:
    """Return `given`, a time-out as requests takes it, as limits of a whole exchange; None means `default`."""
    if isinstance(given, urllib3.Timeout):
        given = (given.connect_timeout, given.read_timeout)
    pair = given if isinstance(given, tuple) else (given, given)
    connect, whole = (one if isinstance(one, int | float) and one else d for one, d in zip(pair, default, strict=True))
    return urllib3.Timeout(connect=connect, read=whole, total=whole)


class _Response(InTime):
    def begin(self) -> None:
        """Read the head, and drop its malformed lines: urllib3 would log them, with the URL."""
        super().begin()
        self.headers.defects.clear()
        self.headers.set_payload("")


class _Connection(HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        try:
            return connected(self.host, self.port, Deadline(float(self.timeout or 0)))
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
