"""Pages of a list, linked by HAL."""

from typing import Any

from broker.errors import PartnerUnavailableError


class Pages:
    """The pages seen so far. `next_link` follows `_links.next`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def next_link(self, document: dict[str, Any]) -> str:
        """Return the link to the next page, "" after the last one."""
        links = document.get("_links")
        link = links.get("next") if isinstance(links, dict) else None
        href = link.get("href") if isinstance(link, dict) else None
        return href if isinstance(href, str) else ""

    def new(self, url: str) -> str:
        """Return the URL of a page; raise `PartnerUnavailableError` for one that was seen."""
        if url in self._seen:
            raise PartnerUnavailableError("the partner's list links to an earlier page")
        self._seen.add(url)
        return url


def document_of(found: object, status: int) -> dict[str, Any]:
    """Return a page; raise `PartnerUnavailableError` if it is not a JSON object."""
    if not isinstance(found, dict):
        raise PartnerUnavailableError(f"the partner's answer ({status}) is not a JSON object")
    return found
