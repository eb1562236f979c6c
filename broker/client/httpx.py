"""Sessions for httpx: a `Client` and an `AsyncClient` (asyncio) on a bundle, which follow its rotation.

import broker.client.httpx

with broker.client.httpx.open("/run/credential-broker/mzp-1/reports") as client:
    client.get("/fleets")

It needs `pip install 'credential-broker[httpx]'`. Errors are those of `broker.client`, and those of httpx with texts of
ours.
"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Unpack

try:
    import httpx
except ModuleNotFoundError as error:
    lacks = f"broker.client.httpx needs {error.name}, of the extra httpx: pip install 'credential-broker[httpx]'"
    raise ModuleNotFoundError(lacks, name=error.name) from None

from broker.client.asynchronous import Loop
from broker.client.following import Directory, Follower, Following
from broker.client.httpx_transport import AsyncTransport, AsyncWire, Transport
from broker.client.leased import Options, leased
from broker.client.paging import Pages, document_of, pages
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current
from broker.upstream.session import REDIRECTS, TIMEOUT, PartnerAdapter, headers_of


class Client(Following, httpx.Client):
    """An `httpx.Client` on a bundle. Paths such as `/fleets` are below the account's base URL.

    It behaves as `broker.client.Session`: `timeout` is (seconds to connect, seconds for the whole exchange).
    """

    def __init__(self, follower: Follower, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        self.current: Current[PartnerAdapter] = Current(follower.credentials, PartnerAdapter)
        super().__init__(transport=Transport(self.current, follower), **_options(follower.credentials, timeout))
        self._begin(follower)

    def build_request(self, method: str, url: httpx.URL | str, **kwargs: Any) -> httpx.Request:
        """Return a request; `url` is a path below the base URL, or a link that the partner sent."""
        credentials = self.current.credentials
        return _bare(credentials, super().build_request(method, credentials.target(str(url)), **kwargs))

    def pages(self, path: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Return the pages of a list, following `_links.next` to the end (HAL).

        Raise `httpx.HTTPStatusError` for an error status, `RefusedError` for a link out of the base URL, and
        `PartnerUnavailableError` for a page that is not a JSON object, or a link to an earlier page.
        """
        return pages(self.get, self.current, path, kwargs)


class AsyncClient(Following, httpx.AsyncClient):
    """An `httpx.AsyncClient` on a bundle, as `Client`; for asyncio."""

    def __init__(self, follower: Follower, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._loop = Loop()
        self.current: Current[AsyncWire] = Current(follower.credentials, partial(AsyncWire, self._loop))
        transport = AsyncTransport(self.current, follower, self._loop)
        super().__init__(transport=transport, **_options(follower.credentials, timeout))
        self._begin(follower)

    def build_request(self, method: str, url: httpx.URL | str, **kwargs: Any) -> httpx.Request:
        """Return a request; `url` is a path below the base URL, or a link that the partner sent."""
        credentials = self.current.credentials
        return _bare(credentials, super().build_request(method, credentials.target(str(url)), **kwargs))

    async def pages(self, path: str, **kwargs: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of a list, as `Client.pages` does."""
        seen = Pages()
        url = path
        while url:
            response = await self.get(url, **kwargs)
            document = document_of(response)
            yield document
            kwargs.pop("params", None)  # the link holds them
            url = seen.after(document, self.current.credentials, str(response.url))


def open(  # noqa: A001  # broker.client.httpx.open
    directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT, proxy: str = "", proxy_login: str = ""
) -> Client:
    """Return a client on the bundle published in `directory`, as `broker.client.open` does."""
    return Client(Directory(directory, proxy, proxy_login), timeout=timeout)


def open_async(
    directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT, proxy: str = "", proxy_login: str = ""
) -> AsyncClient:
    """Return an asynchronous client on the bundle published in `directory`."""
    return AsyncClient(Directory(directory, proxy, proxy_login), timeout=timeout)


def connect(application: str, *, timeout: tuple[float, float] = TIMEOUT, **options: Unpack[Options]) -> Client:
    """Return a client on a bundle of ACCOUNT/APPLICATION from the service, as `broker.client.connect` does."""
    return Client(leased(application, options), timeout=timeout)


def connect_async(
    application: str, *, timeout: tuple[float, float] = TIMEOUT, **options: Unpack[Options]
) -> AsyncClient:
    """Return an asynchronous client on a bundle of ACCOUNT/APPLICATION. It blocks for one request to the service."""
    return AsyncClient(leased(application, options), timeout=timeout)


def _options(credentials: Credentials, timeout: tuple[float, float]) -> dict[str, Any]:
    return {
        "base_url": credentials.base_url,
        "follow_redirects": True,  # the transport refuses those out of the base URL
        "headers": headers_of(credentials),
        "max_redirects": REDIRECTS,
        "timeout": httpx.Timeout(timeout[1], connect=timeout[0]),
        "trust_env": False,
    }


def _bare(credentials: Credentials, request: httpx.Request) -> httpx.Request:
    """Take our client_id out of the query: httpx logs URLs."""
    request.url = httpx.URL(credentials.target(str(request.url.copy_with(fragment=None))))
    return request
