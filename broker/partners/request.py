"""The request a partner wants: where it goes and what must be added, without a secret in sight.

Pure. `upstream` and, later, the gateway send by it; `broker explain` prints it. What the two must never disagree on,
which URL is inside the account's base and what a client_id in a query may be, is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from broker.errors import InputError, RefusedError
from broker.model.authentication import Authentication, Place

__all__ = ["METHODS", "Recipe", "base_url", "inside", "join", "recipe", "with_client_id", "without_client_id"]

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.ASCII)
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~"  # RFC 3986 pchar; '%' since what is encoded already stays so
_QUERY_SAFE: Final = _PATH_SAFE + "?"
_DECODINGS: Final = 4  # deeper nesting than that is nobody's honest path
_LARGEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Recipe:
    """A request as far as it is public. The client certificate, Basic and the client_id are still to be added."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    authentication: Authentication

    def with_client_id(self, client_id: str) -> str:
        """Return the URL to send: with `client_id` where this partner wants it in the query."""
        return with_client_id(self.url, self.authentication, quote(client_id, safe=""))


def base_url(text: str) -> str:
    """Return `text` as an account's base URL in its one spelling; raise `InputError`.

    https only, since a client certificate means nothing without TLS; no user, query, fragment or dot segments; a host
    in lower case; no slash at the end.
    """
    hint = "write it like https://api.example.com/v3"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InputError(f"{_shown(text)} is not a URL", hint=hint) from None
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise InputError(f"{_shown(text)} has characters that no URL has", hint=hint)
    if parts.scheme != "https":
        raise InputError(f"{_shown(text)} is not https", hint="the client certificate needs TLS: use https://")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise InputError("a base URL has no user, no query and no fragment", hint=hint)
    host = parts.netloc.lower().removesuffix(f":{port}" if port is not None else ":")
    if not _HOST.fullmatch(host) or not (port is None or 0 < port <= _LARGEST_PORT):
        raise InputError(f"{_shown(text)} has no usable host", hint=hint)
    path = parts.path.rstrip("/")
    if path and not _stays(path):
        raise InputError(f"the path of {_shown(text)} leaves itself", hint=hint)
    return f"https://{host}{'' if port in (None, 443) else f':{port}'}{path}"


def join(base: str, path: str) -> str:
    """Return the URL of `path` under `base`. `path` begins with one slash and may carry a query.

    Raise `RefusedError` for whatever could leave `base`: absolute URLs, `//`, dot segments, backslashes and slashes in
    any encoding, control characters, fragments.
    """
    joined = _joined(base, path)
    if not joined:
        raise RefusedError(
            f"{_shown(path)} is not a path below the account's base URL",
            hint="begin with one '/', and leave out dots, fragments and the host: /fleets?pageSize=10",
        )
    return joined


def inside(base: str, url: str) -> str:
    """Return `url` if it lies under `base`, as a link of the partner may; raise `RefusedError` without quoting it."""
    root = base + "/"
    if url == base or (url.startswith(base + "?") and url.isprintable()):
        return url
    joined = _joined(base, "/" + url[len(root) :]) if url.startswith(root) else ""
    if not joined:
        raise RefusedError(
            "a URL or a link of the partner is not below the account's base URL",
            hint="secrets travel to the base URL of their account and nowhere else",
        )
    return joined


def with_client_id(url: str, authentication: Authentication, encoded: str) -> str:
    """Return `url` with a client_id, percent-encoded already, where this partner wants it in the query.

    Its name needs no encoding: a profile may give it letters, digits, '-', '_' and '.'.
    """
    place = authentication.client_id
    if place is None or place.place is not Place.QUERY:
        return url
    return f"{url}{'&' if '?' in url else '?'}{place.name}={encoded}"


def without_client_id(query: str, name: str, ours: str) -> str:
    """Return a raw query without its client_id. One equal to `ours`, which the partner's own links echo, is dropped.

    Raise `RefusedError` for any other. Names are decoded first, compared without regard to case, and looked for behind
    `;` too: what any server could read as the client_id counts as one.
    """
    kept = []
    for pair in query.split("&"):
        pieces = [piece.partition("=") for piece in pair.split(";")]
        found = [unquote_plus(value) for key, _, value in pieces if _names(key, name)]
        if any(value != ours for value in found) or (found and len(pieces) > 1):
            raise RefusedError(
                f"the query has a {name} that is not the application's",
                hint="leave it out: the broker adds it",
            )
        if pair and not found:
            kept.append(pair)
    return "&".join(kept)


def recipe(
    base: str,
    authentication: Authentication,
    method: str,
    path: str,
    query: Sequence[tuple[str, str]] = (),
    *,
    client_id: str = "",
) -> Recipe:
    """Return the request for `method` and `path`, with `query` added to what `path` carries.

    `client_id` is the application's: a query may repeat it, and none other. Raise `RefusedError` where it does, or
    where `path` could leave `base`; `InputError` for a method that no partner has.
    """
    if method not in METHODS:
        raise InputError(f"{_shown(method)} is not a method", hint=f"use one of {', '.join(METHODS)}")
    target, _, given = join(base, path).partition("?")
    added = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query)
    whole = "&".join(part for part in (given, added) if part)
    if authentication.client_id and authentication.client_id.place is Place.QUERY:
        whole = without_client_id(whole, authentication.client_id.name, client_id)
    headers = (("Accept", authentication.accept),)
    return Recipe(method, f"{target}?{whole}" if whole else target, headers, authentication)


def _joined(base: str, path: str) -> str:
    """Return the URL of `path` under `base`; "" where `path` could leave it."""
    route, mark, query = path.partition("?")
    if not route.startswith("/") or not _stays(route) or "#" in path or not path.isprintable():
        return ""
    return f"{base}{quote(route, safe=_PATH_SAFE)}{mark}{quote(query, safe=_QUERY_SAFE)}"


def _stays(route: str) -> bool:
    """Whether a path, decoded as often as anybody might, has no empty, dot or doubtful segment but a last empty one."""
    for _ in range(_DECODINGS):
        if not route.isprintable() or "\\" in route:
            return False
        segments = [segment.split(";")[0] for segment in route.split("/")[1:]]
        if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
            return False
        decoded = unquote(route)
        if decoded.count("/") != route.count("/"):
            return False
        if decoded == route:
            return True
        route = decoded
    return False


def _names(key: str, name: str) -> bool:
    return unquote_plus(key).strip().lower() == name.lower()


def _shown(text: str) -> str:
    return repr(text[:120])
