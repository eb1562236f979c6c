"""The session an application uses: it follows the bundle's rotation by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import requests

from broker.client.published import NothingPublishedError, Published, read, resolved
from broker.errors import InputError, PartnerUnavailableError, RefusedError
from broker.model.bundle import Manifest
from broker.upstream.session import TIMEOUT, PartnerSession

__all__ = ["CHECK_EVERY", "Session", "open"]

CHECK_EVERY: Final = 1.0  # seconds between two looks at `current`


class Session(PartnerSession):
    """A `PartnerSession` on a published bundle. Paths such as `/fleets` begin at the account's base URL.

    Before a request, at most once a second, it looks whether `current` points elsewhere, and then takes over the new
    generation whole. Where the bundle is gone (its lease has ended) or cannot be read, it goes on with what it has:
    a lease that ended takes nothing out of a program's memory, and `withdrawn` says so.
    """

    def __init__(self, root: Path, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._root = root
        self._published = read(root)
        self._checked = time.monotonic()
        self._turning = threading.Lock()
        super().__init__(self._published.credentials, timeout=timeout)

    @property
    def manifest(self) -> Manifest:
        """What is public of the generation in use."""
        return self._published.manifest

    @property
    def withdrawn(self) -> bool:
        """Whether the bundle is gone from its directory. A program that can stop using it then should."""
        try:
            resolved(self._root)
        except NothingPublishedError:
            return True
        return False

    def follow(self) -> bool:
        """Take over the generation that is current now, if it is another; return whether it was.

        Raise `NothingPublishedError` where there is none, `InputError` where it cannot be read.
        """
        with self._turning:
            self._checked = time.monotonic()
            if resolved(self._root) == self._published.path:
                return False
            self._take(read(self._root))
            return True

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request with the newest generation."""
        if time.monotonic() - self._checked >= CHECK_EVERY:
            self._follow_if_possible()
        return super().request(method, url, *args, **kwargs)

    def pages(self, path: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yield the documents of a list, following `_links.next` to its end (HAL).

        Raise `requests.HTTPError` for an answer that is none, `RefusedError` for a link out of the base URL, and
        `PartnerUnavailableError` for a document that is not HAL or a list that comes back to where it was.
        """
        seen: set[str] = set()
        url: str | None = path
        while url is not None:
            response = self.get(url, **kwargs)
            response.raise_for_status()
            document = _document(response)
            yield document
            kwargs.pop("params", None)  # the link has them
            href = _next(document)
            url = self.link(href, response.url) if href else None
            if url in seen:
                raise PartnerUnavailableError("the partner's list comes back to a page it had before")
            seen.add(url or "")

    def _follow_if_possible(self) -> None:
        try:
            self.follow()
        except InputError:
            return  # what we have may still work; the next second is tried again
        except RefusedError:
            self._checked = -CHECK_EVERY  # not this session's bundle any more: say so at every request
            raise

    def _take(self, published: Published) -> None:
        self.swap(published.credentials)
        self._published = published


def open(directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT) -> Session:  # noqa: A001  # broker.client.open
    """Return a session on the bundle published in `directory`.

    Raise `NothingPublishedError` where there is none, `InputError` where it cannot be read or is not whole.
    """
    return Session(Path(directory), timeout=timeout)


def _document(response: requests.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except requests.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise PartnerUnavailableError(f"the partner's answer ({response.status_code}) is not a JSON object")
    return found


def _next(document: dict[str, Any]) -> str:
    links = document.get("_links")
    link = links.get("next") if isinstance(links, dict) else None
    href = link.get("href") if isinstance(link, dict) else None
    return href if isinstance(href, str) else ""
