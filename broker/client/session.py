"""The session that an application uses. It follows the rotation of its bundle."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import requests

from broker.client.published import read, resolved
from broker.delivery.directory import CURRENT
from broker.errors import InputError, PartnerUnavailableError, RefusedError
from broker.model.bundle import Manifest
from broker.upstream.session import TIMEOUT, PartnerSession

__all__ = ["CHECK_EVERY", "Session", "open"]

CHECK_EVERY: Final = 1.0  # seconds between two reads of the link `current`


class Session(PartnerSession):
    """A `PartnerSession` on a published bundle. Paths such as `/fleets` are below the account's base URL.

    Before a request, at most once a second, it reads the link `current`, and switches to a new generation as a whole.
    If the bundle is gone (its lease has ended) or cannot be read, it keeps the generation it has: the end of a lease
    takes nothing out of a program's memory. `withdrawn` reports it.
    """

    def __init__(self, root: Path, *, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._root = root
        self._published = read(root)
        self._checked = time.monotonic()
        self._switching = threading.Lock()
        super().__init__(self._published.credentials, timeout=timeout)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation in use."""
        return self._published.manifest

    @property
    def withdrawn(self) -> bool:
        """Return whether the bundle is gone from its directory. The program should then stop using it."""
        return not os.path.islink(self._root / CURRENT)  # noqa: PTH114  # Path.is_symlink raises without permission

    def follow(self) -> bool:
        """Switch to the current generation; return whether it is another than before.

        Raise `NothingPublishedError` if there is none, `InputError` if it cannot be read.
        """
        with self._switching:
            self._checked = time.monotonic()
            if resolved(self._root) == self._published.path:
                return False
            published = read(self._root)
            self.swap(published.credentials)
            self._published = published
            return True

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request with the current generation."""
        if time.monotonic() - self._checked >= CHECK_EVERY:
            try:
                with suppress(InputError):  # the set in use may still work; a second later this is tried again
                    self.follow()
            except RefusedError:
                self._checked = -CHECK_EVERY  # the bundle of another account: refuse every request
                raise
        return super().request(method, url, *args, **kwargs)

    def pages(self, path: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list, following `_links.next` to the end (HAL).

        Raise `requests.HTTPError` for an error status, `RefusedError` for a link out of the base URL, and
        `PartnerUnavailableError` for a page that is not a JSON object, or a link to an earlier page.
        """
        seen: set[str] = set()
        url: str | None = path
        while url is not None:
            response = self.get(url, **kwargs)
            response.raise_for_status()
            document = _document(response)
            yield document
            kwargs.pop("params", None)  # the link holds them
            href = _next(document)
            url = self.link(href, response.url) if href else None
            if url in seen:
                raise PartnerUnavailableError("the partner's list links to an earlier page")
            seen.add(url or "")


def open(directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT) -> Session:  # noqa: A001  # broker.client.open
    """Return a session on the bundle published in `directory`.

    Raise `NothingPublishedError` if there is none, `InputError` if it cannot be read or is damaged.
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
