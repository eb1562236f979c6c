"""A `requests` session that holds one whole set, and swaps it whole."""

from __future__ import annotations

import http.client
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from broker.errors import RefusedError
from broker.model.authentication import Place
from broker.partners.request import inside, join, with_client_id, without_client_id
from broker.upstream.credentials import Credentials
from broker.upstream.faults import described

__all__ = ["TIMEOUT", "PartnerSession"]

TIMEOUT: Final = (10.0, 30.0)  # seconds to connect, seconds between two reads
_FAILURES: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)


class PartnerSession(requests.Session):
    """Call the partner with mTLS, Basic and client_id, under the account's base URL and nowhere else.

    A path such as `/fleets` is taken from the base URL. A redirect that leaves it raises `RefusedError`; so do
    `verify=`, `cert=` and proxies, since server and client are known by the set alone. Nothing is retried. What a
    caller, a hook or an exception gets to see has no secret in it. Errors are those of requests, told in our words.
    Threads may share it, as far as they may share a `requests.Session`.
    """

    def __init__(self, credentials: Credentials, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE and .netrc would add to what the set says
        self.headers["Accept"] = credentials.authentication.accept
        self.headers["User-Agent"] = "credential-broker"
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
        text = url.decode() if isinstance(url, bytes) else url
        return super().request(method, join(self.base_url, text) if text.startswith("/") else text, *args, **kwargs)

    def get_adapter(self, url: str | bytes) -> HTTPAdapter:  # noqa: ARG002  # there is only one
        """Return the one adapter there is: it refuses what is not below the base URL."""
        return self._partner

    def close(self) -> None:
        """Close idle connections."""
        super().close()
        self._partner.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a session with a set of secrets cannot be pickled or copied")


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
        result = self._attempt(request, stream=stream, timeout=timeout or self._timeout)
        if isinstance(result, requests.Response):
            return result
        # Raised here, where no frame holds the signed copy and nothing hangs on as its context.
        raise result

    def _attempt(self, request: requests.PreparedRequest, **how: Any) -> requests.Response | requests.RequestException:
        signed = self._signed(request)
        try:
            response = super().send(signed, verify=True, cert=None, proxies=None, **how)
        except _FAILURES as error:
            kind = type(error) if isinstance(error, requests.RequestException) else requests.ConnectionError
            return kind(described(error), request=request)
        response.request, response.url = request, request.url or ""
        response.raw.url = request.path_url
        return response

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        credentials = self._credentials
        target, _, query = inside(credentials.base_url, request.url or "").partition("?")
        place = credentials.authentication.client_id
        if place and place.place is Place.QUERY:
            query = without_client_id(query, place.name, credentials.client_id)
        bare, client_id = f"{target}?{query}" if query else target, quote(credentials.client_id, safe="")
        signed = request.copy()
        signed.url = with_client_id(bare, credentials.authentication, client_id)
        signed.headers.update(credentials.headers())
        return signed
