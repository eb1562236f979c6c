"""The application's client_id, in the query or in a header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote_plus

from broker.errors import InputError, RefusedError
from broker.model.authentication.interface import CLIENT_ID, Check, CurlOption, Part, Request, Values
from broker.model.setting import SettingError

__all__ = ["ClientId", "without_client_id"]

_TOKEN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_PLACEHOLDER: Final = "<client_id>"
_TAKEN: Final = frozenset(  # headers with a meaning of their own
    {
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


@dataclass(frozen=True, slots=True)
class ClientId(Part):
    """Name of the query parameter, or of the header, that carries the client_id: one of the two."""

    kind = "client_id"
    query: str = ""
    header: str = ""

    def __post_init__(self) -> None:
        if self.query and self.header:
            raise SettingError("header", "is given, and a query too", "keep one of the two")
        name = self.query or self.header
        if not name or not set(name) <= _TOKEN or name.lower() in _TAKEN:
            raise SettingError("header" if self.header else "query", f"cannot be {name[:60]!r}", "client_id is usual")

    @property
    def needs(self) -> Mapping[str, Check]:
        """The application's client_id."""
        return {CLIENT_ID: _check}

    def add(self, request: Request, values: Values) -> Request:
        """Add it. A query may repeat it, as the partner's own links do; raise `RefusedError` if it has another."""
        if self.header:
            return request.with_header(self.header, values.client_id)
        target, _, query = request.url.partition("?")
        rest = without_client_id(query, self.query, values.client_id)
        bare = replace(request, url=f"{target}?{rest}" if rest else target)
        return bare.with_query(self.query, quote(values.client_id, safe=""))

    def show(self, request: Request) -> Request:
        """Show where it is."""
        if self.header:
            return request.with_header(self.header, _PLACEHOLDER)
        return request.with_query(self.query, _PLACEHOLDER)

    def curl(self, values: Values) -> tuple[CurlOption, ...]:
        """Return `--header`; or `--get` with `--data-urlencode`, which every curl has: `-d` then goes there too."""
        if self.header:
            return (("header", f"{self.header}: {values.client_id}"),)
        return (("get", ""), ("data-urlencode", f"{self.query}={values.client_id}"))


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


def _names(key: str, name: str) -> bool:
    return unquote_plus(key).strip().lower() == name.lower()


def _check(client_id: str) -> InputError | None:
    if not client_id or not client_id.isascii() or not client_id.isprintable() or " " in client_id:
        return InputError("the client_id is empty, or has characters that no client_id has", hint="broker app set")
    return None
