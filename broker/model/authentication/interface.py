"""The interface of a part of an authentication, the requests it adds to, and the values it adds.

A part is a frozen struct whose fields are its settings in a profile: `hmac = { header = "X-Signature" }` makes
`Hmac(header="X-Signature")`. It holds no secret. `authentication.PARTS` lists all parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.secret import Secret

LOGIN: Final = "login"
CLIENT_ID: Final = "client_id"
PASSWORD: Final = "password"  # noqa: S105  # the name of a secret

# Why no request can carry a value, or None. Returned, not raised: a frame that raises would hold the value
Check = Callable[[str], InputError | None]
CurlOption = tuple[str, str]  # a long option without "--", and its value; "" for a flag


class Request(Struct, frozen=True):
    """A request before it is sent. Its repr shows the method alone."""

    method: str
    url: str  # absolute, below the account's base URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""  # None for a stream

    def __repr__(self) -> str:
        return f"Request(method={self.method!r})"

    @property
    def host(self) -> str:
        """The value of the Host header."""
        return urlsplit(self.url).netloc

    @property
    def target(self) -> str:
        """Path and query as in the request line."""
        rest = self.url.partition("://")[2].removeprefix(self.host)
        return rest if rest.startswith("/") else f"/{rest}"

    @property
    def content(self) -> bytes:
        """The body, for a part that signs it or adds to it; raise `RefusedError` for a stream."""
        if self.body is None:
            raise RefusedError(
                "this partner's authentication covers the body, which is a stream", hint="send the body as bytes"
            )
        return self.body

    def with_header(self, name: str, value: str) -> Request:
        """Return a copy with the header `name`, which replaces any other of this name."""
        if not (value.isascii() and value.isprintable()):
            raise InputError(f"the value for the header {name} has a character that no header can carry")
        kept = {key: text for key, text in self.headers.items() if key.lower() != name.lower()}
        return replace(self, headers={**kept, name: value})

    def with_query(self, name: str, encoded: str) -> Request:
        """Return a copy with one more parameter, whose value is already percent-encoded."""
        return replace(self, url=f"{self.url}{'&' if '?' in self.url else '?'}{name}={encoded}")


class Values(Struct, frozen=True):
    """The values that parts add: those of one application, and the named secrets of one generation."""

    login: str
    client_id: str
    secrets: Mapping[str, Secret[str]]

    def __repr__(self) -> str:
        return f"Values(secrets={self.secrets!r})"

    def secret(self, name: str) -> Secret[str]:
        """Return a named secret; raise `InputError` if the generation has none of this name."""
        if name not in self.secrets:
            raise InputError(f"the account has no secret {name!r}, which the partner's profile needs")
        return self.secrets[name]

    def reveal(self, name: str) -> str:
        """Return the value that a part needs under `name`."""
        return {LOGIN: self.login, CLIENT_ID: self.client_id}[name] if name in VALUES else self.secret(name).reveal()


VALUES: Final = (LOGIN, CLIENT_ID)  # the other needs of a part are names of secrets


class Part(Struct, frozen=True):
    """One thing that the partner wants in every request."""

    kind: ClassVar[str]  # its key in a profile's table [authentication]

    @property
    def needs(self) -> Mapping[str, Check]:
        """The check of each value that it adds, by name: `login`, `client_id`, or a named secret."""
        raise NotImplementedError

    def add(self, request: Request, values: Values) -> Request:
        """Return a copy of `request` with this part added. Earlier parts have already been added."""
        raise NotImplementedError

    def bare(self, request: Request, values: Values) -> Request:  # noqa: ARG002  # for those that override it
        """Return a copy of `request` without what the partner's links repeat of this part."""
        return request

    def show(self, request: Request) -> Request:
        """Return a copy of `request` with placeholders for everything that `add` adds."""
        raise NotImplementedError

    def curl(self, values: Values) -> tuple[CurlOption, ...] | None:  # noqa: ARG002  # for those that override it
        """Return the curl options that do the same, or None if no fixed option can, as for a signature."""
        return None
