"""A `requests` session that holds one whole set, and swaps it whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any, Final, NoReturn
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from broker.errors import BrokerError, RefusedError
from broker.model.authentication import Request
from broker.partners.request import inside, join
from broker.upstream.answer import FAILURES, Answer, failure
from broker.upstream.credentials import Credentials
from broker.upstream.pool import Pool, timeout_of

__all__ = ["TIMEOUT", "PartnerSession"]

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds for the whole exchange
_ORIGIN: Final = re.compile(r"\w+://[^/?#]*")
_REDIRECTS: Final = 5  # each is an exchange of its own


class PartnerSession(requests.Session):
    """Call the partner with mTLS and its authentication, under the account's base URL and nowhere else.

    A path such as `/fleets` is taken from the base URL. A redirect that leaves it raises `RefusedError`; so do
    `verify=`, `cert=` and proxies, since server and client are known by the set alone. Nothing is retried. What a
    caller, a hook or an exception gets to see has no secret in it. Errors are those of requests, in our words alone.
    `timeout` is (seconds to connect, seconds for the whole exchange): nothing the partner sends extends it. Threads may
    share it, as far as they may share a `requests.Session`.
    """

    def __init__(self, credentials: Credentials, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE and .netrc would add to what the set says
        self.headers["Accept"] = credentials.authentication.accept
        self.headers["User-Agent"] = "credential-broker"
        self.max_redirects = _REDIRECTS
        self._timeout = timeout
        self._partner = _PartnerAdapter(credentials, timeout)

    @property
    def base_url(self) -> str:
        """Where paths begin."""
        return self._partner.base_url

    def swap(self, credentials: Credentials) -> None:
        """Use `credentials` from the next request on. One reference changes; requests under way keep theirs.

        Raise `RefusedError` for a set of another base URL: that is another account.
        """
        if credentials.base_url != self.base_url:
            raise RefusedError("a session keeps its base URL", hint="open a new session for another account")
        # The adapter left behind closes its idle connections when the last request has let go of it.
        self._partner = _PartnerAdapter(credentials, self._timeout)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; `url` may be a path below the base URL, or a link that the partner gave."""
        text = url.decode(errors="replace") if isinstance(url, bytes) else url
        return super().request(method, self._target(text), *args, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where a redirect leads; raise `RefusedError`, without quoting it, unless it is below the base URL."""
        if not resp.is_redirect:
            return None
        try:
            return self.link(resp.headers["Location"].encode("latin-1", "replace").decode(errors="replace"), resp.url)
        except RefusedError:
            with suppress(requests.RequestException):
                _ = resp.content  # lets the connection go, as requests does before it follows
            raise

    def resolve_redirects(self, resp: requests.Response, req: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Follow redirects; with `allow_redirects=False` one that may not be followed is an answer like others."""
        with suppress(RefusedError) if kwargs.get("yield_requests") else nullcontext():
            yield from super().resolve_redirects(resp, req, *args, **kwargs)

    def link(self, href: str, here: str) -> str:
        """Return the URL of a link that the partner gave in its answer to `here`; raise `RefusedError` as above."""
        try:
            found = urljoin(here, href)
        except ValueError:
            found = ""
        return inside(self.base_url, _lowered(found.partition("#")[0]))

    def _target(self, text: str) -> str:
        """Return the URL to call; raise `RefusedError`. The partner may have written `text`, so it is redacted."""
        if not text.startswith("/"):
            return inside(self.base_url, _lowered(text))
        try:
            return join(self.base_url, text)
        except RefusedError as error:
            refused = self._partner.refused(error)
        raise refused

    def get_adapter(self, url: str | bytes) -> HTTPAdapter:  # noqa: ARG002  # there is only one
        """Return the one adapter there is: it refuses what is not below the base URL."""
        return self._partner

    def close(self) -> None:
        """Close idle connections."""
        super().close()
        self._partner.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a session with a set of secrets cannot be pickled or copied")


def _lowered(url: str) -> str:
    """Return `url` with scheme and host in lower case, where case means nothing."""
    origin = _ORIGIN.match(url)
    return origin[0].lower() + url[origin.end() :] if origin else url


class _PartnerAdapter(HTTPAdapter):
    """One generation's set. Secrets join a copy, last of all: hooks, redirects and responses never see them."""

    def __init__(self, credentials: Credentials, timeout: tuple[float, float]) -> None:
        self._credentials = credentials
        self._timeout = timeout
        super().__init__(max_retries=0)

    @property
    def base_url(self) -> str:
        return self._credentials.base_url

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._credentials.context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def refused(self, error: BrokerError) -> BrokerError:
        """Return `error` without secrets, and without the frames that hold some."""
        return type(error)(self._credentials.redactor().redact(error.message), hint=error.hint)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *_: Any, **__: Any
    ) -> urllib3.HTTPConnectionPool:
        """Use the pool's own context: what requests would name here, urllib3 loads into it."""
        parts = urlsplit(request.url or "")
        pool: urllib3.HTTPConnectionPool = self.poolmanager.connection_from_host(
            parts.hostname, parts.port, parts.scheme
        )
        return pool

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Add nothing: requests would load its own CA bundle into our pinned context."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        if verify is not True or cert or proxies:
            raise RefusedError(
                "verify, cert and proxies cannot be chosen: the set says how server and client are known",
                hint="leave them out",
            )
        result = self._attempt(request, stream=stream, timeout=timeout)
        if isinstance(result, requests.Response):
            return result
        # Raised here, where no frame holds the signed copy and nothing hangs on as its context.
        raise result

    def _attempt(
        self, request: requests.PreparedRequest, *, stream: bool, timeout: Any
    ) -> requests.Response | Exception:
        try:
            whole: Any = timeout_of(timeout, self._timeout)  # the stubs know no `Timeout`
            signed = self._signed(request)
            response = super().send(signed, stream=stream, timeout=whole, verify=True, cert=None, proxies=None)
        except BrokerError as error:
            return self.refused(error)
        except FAILURES as error:
            return failure(error, request)
        response.raw.url = request.path_url
        return Answer(response, request, self._credentials.redactor)

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url, body = inside(self._credentials.base_url, request.url or ""), _body(request)
        made = self._credentials.signed(Request(request.method or "GET", url, dict(request.headers), body))
        signed = request.copy()
        signed.url = made.url
        signed.headers.update(made.headers)
        if made.body != body:
            signed.body = made.body
            signed.prepare_content_length(made.body)
        return signed


def _body(request: requests.PreparedRequest) -> bytes | None:
    """Return the body, or None for a stream."""
    body: object = request.body or b""  # typeshed knows no streams here
    return body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else None
