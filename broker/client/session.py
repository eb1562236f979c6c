"""The session for requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import requests

from broker.client.following import Directory, Follower, Following
from broker.client.leased import Options, leased
from broker.client.paging import pages
from broker.upstream.session import TIMEOUT, PartnerSession


class Session(Following, PartnerSession):
    """A `PartnerSession` on a bundle. Paths such as `/fleets` are below the account's base URL.

    It switches to a new generation as a whole. If the bundle is gone from a directory (its lease has ended) or cannot
    be read, it keeps the generation it has: the end of a lease takes nothing out of a program's memory. `withdrawn`
    reports it. Connections are closed with their generation, and at the end of its certificate.
    """

    def __init__(self, follower: Follower, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        super().__init__(follower.credentials, timeout=timeout)
        self._begin(follower)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request with the current generation."""
        self._follower.check()
        return super().request(method, url, *args, **kwargs)

    def pages(self, path: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Return the pages of a list, following `_links.next` to the end (HAL).

        Raise `requests.HTTPError` for an error status, `RefusedError` for a link out of the base URL, and
        `PartnerUnavailableError` for a page that is not a JSON object, or a link to an earlier page.
        """
        return pages(self.get, self.current, path, kwargs)

    def close(self) -> None:
        """Close the connections, and give the bundle back if it is the session's own."""
        super().close()
        self._follower.end()


def open(  # noqa: A001  # broker.client.open
    directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT, proxy: str = "", proxy_login: str = ""
) -> Session:
    """Return a session on the bundle published in `directory`.

    `proxy` is a forward proxy on the way to the partner, such as "http://proxy.example:3128", and `proxy_login` is
    "USER:PASSWORD" for it. Raise `NothingPublishedError` if there is no bundle, `InputError` if it cannot be read or is
    damaged, or if the proxy cannot be used.
    """
    return Session(Directory(directory, proxy, proxy_login), timeout=timeout)


def connect(application: str, *, timeout: tuple[float, float] = TIMEOUT, **options: Unpack[Options]) -> Session:
    """Return a session on a bundle of ACCOUNT/APPLICATION, which is fetched from the service and held in memory.

    A thread renews its lease and follows rotations; `close`, and the exit of the program, give it back. Raise
    `InputError` for a wrong option, `DeniedError` without a right, and other errors of the service.
    """
    return Session(leased(application, options), timeout=timeout)
