"""The application's client_id, in the query or in a header."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote_plus

from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.authentication.interface import CLIENT_ID, Check, CurlOption, Part, Request, Values
from broker.model.setting import SettingError

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_PLACEHOLDER: Final = "<client_id>"
_TAKEN: Final = re.compile(  # headers that mean something else
    "accept|authorization|connection|content-length|content-type|cookie|expect|host|proxy-authorization|te|trailer|"
    "transfer-encoding|upgrade|user-agent"
)


class ClientId(Part, frozen=True):
    """Name of the query parameter or of the header that carries the client_id: one of the two."""

    kind = "client_id"
    query: str = ""
    header: str = ""

    def __post_init__(self) -> None:
        if self.query and self.header:
            raise SettingError("header", "is set, and so is query", "keep one of the two")
        name = self.query or self.header
        if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name.lower()):
            raise SettingError(
                "header" if self.header else "query", f"cannot be {name[:60]!r}", 'write query = "client_id"'
            )

    @property
    def needs(self) -> Mapping[str, Check]:
        """The check of the client_id."""
        return {CLIENT_ID: _check}

    def add(self, request: Request, values: Values) -> Request:
        """Add it. The query may hold it already, as the partner's links do; raise `RefusedError` for another."""
        if self.header:
            return request.with_header(self.header, values.client_id)
        return self.bare(request, values).with_query(self.query, quote(values.client_id, safe=""))

    def bare(self, request: Request, values: Values) -> Request:
        """Return a copy without ours in the query; raise `RefusedError` for another."""
        target, mark, query = request.url.partition("?")
        if self.header or not mark:
            return request
        rest = without_client_id(query, self.query, values.client_id)
        return replace(request, url=f"{target}?{rest}" if rest else target)

    def show(self, request: Request) -> Request:
        """Show its place."""
        if self.header:
            return request.with_header(self.header, _PLACEHOLDER)
        return request.with_query(self.query, _PLACEHOLDER)

    def curl(self, values: Values) -> tuple[CurlOption, ...]:
        """Return `--header`; or `--get` with `--data-urlencode`, which every curl has: `-d` then adds to the query."""
        if self.header:
            return (("header", f"{self.header}: {values.client_id}"),)
        return (("get", ""), ("data-urlencode", f"{self.query}={values.client_id}"))


def without_client_id(query: str, name: str, ours: str) -> str:
    """Return a raw query without the client_id `ours`, which the partner's links repeat.

    Raise `RefusedError` for any other client_id. Names are decoded, compared without case, and searched for behind `;`
    too: everything that a server could read as a client_id counts.
    """
    kept = []
    for pair in query.split("&"):
        pieces = [piece.partition("=") for piece in pair.split(";")]
        found = [unquote_plus(v) for key, _, v in pieces if unquote_plus(key).strip().lower() == name.lower()]
        if any(value != ours for value in found) or (found and len(pieces) > 1):
            raise RefusedError(
                f"the query has a {name} that is not the application's",
                hint="leave it out: the broker adds it",
            )
        if pair and not found:
            kept.append(pair)
    return "&".join(kept)


def _check(client_id: str) -> InputError | None:
    if not client_id or not client_id.isascii() or not client_id.isprintable() or " " in client_id:
        return InputError(
            "the client_id is empty, or has a space, a control character or one outside ASCII",
            hint="set the client_id again",
        )
    return None
