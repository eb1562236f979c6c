"""HAL collections: pages of 1 to 60 items, opaque page tokens, and links."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

LIST: Final = 60  # the largest page, and the default
HIGH_FREQUENCY: Final = 2_000  # the largest page of telemetry and way points
MOST_DIGITS: Final = 10
MARK: Final = 6  # bytes of digest that tie a token to its list

Item = Mapping[str, Any]


class BadPageError(ValueError):
    """A paging parameter cannot be used."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A page of `size` from `offset`, within items `first` to `end` (exclusive)."""

    size: int
    offset: int
    first: int
    end: int

    @property
    def pages(self) -> int:
        return max(1, -(-(self.end - self.first) // self.size))

    @property
    def number(self) -> int:
        return (self.offset - self.first) // self.size + 1


def collection(
    name: str,
    items: Sequence[Item],
    parameters: Mapping[str, str],
    *,
    path: str,
    link: Callable[[str], str],
    most: int = LIST,
) -> Mapping[str, Any]:
    """Return the page for pageSize, pageToken and indexRange in `parameters`.

    `link` turns a path with query into an href. Raise `BadPageError` for a wrong parameter.
    """
    window = _window(len(items), parameters, path, most)
    shown = items[window.offset : min(window.offset + window.size, window.end)]
    return {
        "_links": _links(window, parameters, path, link),
        "total": window.end - window.first,
        "totalPage": window.pages,
        "currentPage": window.number,
        "_embedded": {name: list(shown)},
    }


def _window(count: int, parameters: Mapping[str, str], path: str, most: int) -> _Window:
    size = _number(parameters.get("pageSize", str(LIST)), "pageSize", 1, most)
    first, end = 0, count
    if "indexRange" in parameters:
        low, _, high = parameters["indexRange"].partition("-")
        first = min(_number(low, "indexRange", 0, 10**9), count)
        end = min(_number(high, "indexRange", first, 10**9) + 1, count)
    offset = _offset(parameters["pageToken"], path) if "pageToken" in parameters else first
    if not first <= offset <= end or (offset - first) % size:
        raise BadPageError("pageToken does not belong to this list")
    return _Window(size, offset, first, max(first, end))


def _links(
    window: _Window, parameters: Mapping[str, str], path: str, link: Callable[[str], str]
) -> Mapping[str, Mapping[str, str]]:
    kept = {name: value for name, value in parameters.items() if name != "pageToken"}

    def at(offset: int) -> Mapping[str, str]:
        query = {**kept, "pageSize": str(window.size), "pageToken": _token(offset, path)}
        return {"href": link(f"{path}?{urlencode(query)}")}

    last = window.first + (window.pages - 1) * window.size
    links = {"self": at(window.offset), "first": at(window.first), "last": at(last)}
    if window.offset < last:
        links["next"] = at(window.offset + window.size)
    if window.offset > window.first:
        links["prev"] = at(window.offset - window.size)
    return links


def _token(offset: int, path: str) -> str:
    body = offset.to_bytes(6, "big")
    return base64.urlsafe_b64encode(body + _mark(body, path)).decode()


def _offset(token: str, path: str) -> int:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if raw[6:] != _mark(raw[:6], path):
        raise BadPageError("pageToken does not belong to this list")
    return int.from_bytes(raw[:6], "big")


def _mark(body: bytes, path: str) -> bytes:
    return hashlib.blake2b(body + path.encode(), digest_size=MARK).digest()


def _number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and least <= int(text) <= most):
        raise BadPageError(f"{name} is not between {least} and {most}")
    return int(text)
