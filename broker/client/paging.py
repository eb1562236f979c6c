"""Pages of a list, linked by HAL."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from broker.errors import PartnerUnavailableError
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current


class Pages:
    """The links to pages that were followed so far."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def after(self, document: dict[str, Any], credentials: Credentials, here: str) -> str:
        """Return the URL in `_links.next` of the page at `here`, "" after the last one.

        Raise `RefusedError` if it is out of the base URL, `PartnerUnavailableError` for one that was followed before.
        """
        links = document.get("_links")
        link = links.get("next") if isinstance(links, dict) else None
        href = link.get("href") if isinstance(link, dict) else None
        if not isinstance(href, str) or not href:
            return ""
        url = credentials.link(href, here)
        if url in self._seen:
            raise PartnerUnavailableError("the partner's list links to an earlier page")
        self._seen.add(url)
        return url


def pages(
    get: Callable[..., Any], current: Current[Any], path: str, options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the pages of the list at `path`, each an answer of `get`: a response of requests or httpx."""
    seen = Pages()
    url = path
    while url:
        response = get(url, **options)
        document = document_of(response)
        yield document
        options.pop("params", None)  # the link holds them
        url = seen.after(document, current.credentials, str(response.url))


def document_of(response: Any) -> dict[str, Any]:
    """Return a page, from a response of requests or httpx; raise `PartnerUnavailableError` if it is no JSON object."""
    response.raise_for_status()
    found = None
    with suppress(ValueError):
        found = response.json()
    return checked(found, response.status_code)


def checked(found: object, status: int) -> dict[str, Any]:
    """Return a page; raise `PartnerUnavailableError` if it is not a JSON object."""
    if not isinstance(found, dict):
        raise PartnerUnavailableError(f"the partner's answer ({status}) is not a JSON object")
    return found
