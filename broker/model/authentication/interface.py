"""The interface of every part of an authentication, and the values that go in and out.

A part is a frozen dataclass whose fields are its settings in a profile: `hmac = { header = "X-Signature" }` makes
`Hmac(header="X-Signature")`. It holds no secret. `authentication.PARTS` lists all parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final
from urllib.parse import urlsplit

from broker.errors import InputError, RefusedError
from broker.model.secret import Secret

__all__ = ["CLIENT_ID", "LOGIN", "PASSWORD", "Check", "CurlOption", "Part", "Request", "Values"]

LOGIN: Final = "login"
CLIENT_ID: Final = "client_id"
PASSWORD: Final = "password"  # noqa: S105  # the name of a secret

# What is wrong with a value that no request can carry; returned, since a frame that raises would hold the value
Check = Callable[[str], InputError | None]
CurlOption = tuple[str, str]  # a long option without "--", and its value; "" for a flag


@dataclass(frozen=True, slots=True)
class Request:
    """A request before it is sent. Its repr shows no more than the method."""

    method: str
    url: str = field(repr=False)  # absolute, below the account's base URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=b"", repr=False)  # None for a stream

    @property
    def host(self) -> str:
        """The value of the Host header."""
        return urlsplit(self.url).netloc

    @property
    def target(self) -> str:
        """Path and query, as the request line has them."""
        rest = self.url.partition("://")[2].removeprefix(self.host)
        return rest if rest.startswith("/") else f"/{rest}"

    @property
    def content(self) -> bytes:
        """The body, for a part that signs it or adds to it; raise `RefusedError` for a stream."""
        if self.body is None:
            raise RefusedError(
                "this partner's authentication covers the body", hint="send it as bytes, not as a stream"
            )
        return self.body

    def with_header(self, name: str, value: str) -> Request:
        """Return a copy with the header `name`, in place of any other of this name."""
        if not (value.isascii() and value.isprintable()):
            raise InputError(f"the value for the header {name} has a character that no header can carry")
        kept = {key: text for key, text in self.headers.items() if key.lower() != name.lower()}
        return replace(self, headers={**kept, name: value})

    def with_query(self, name: str, encoded: str) -> Request:
        """Return a copy with one more parameter, whose value is percent-encoded already."""
        return replace(self, url=f"{self.url}{'&' if '?' in self.url else '?'}{name}={encoded}")


@dataclass(frozen=True, slots=True)
class Values:
    """What the parts add: the values of one application, and the named secrets of one generation."""

    login: str = field(repr=False)
    client_id: str = field(repr=False)
    secrets: Mapping[str, Secret[str]]

    def secret(self, name: str) -> Secret[str]:
        """Return a named secret; raise `InputError` if the generation has none of this name."""
        if name not in self.secrets:
            raise InputError(f"the account has no secret {name!r}, which the partner's profile needs")
        return self.secrets[name]

    def reveal(self, name: str) -> str:
        """Return any value by the name under which a part needs it."""
        return {LOGIN: self.login, CLIENT_ID: self.client_id}[name] if name in VALUES else self.secret(name).reveal()


VALUES: Final = (LOGIN, CLIENT_ID)  # the other needs of a part are names of secrets


class Part(ABC):
    """One thing that a partner wants in every request."""

    kind: ClassVar[str]  # its key in a profile's table [authentication]

    @property
    @abstractmethod
    def needs(self) -> Mapping[str, Check]:
        """The values it adds, by name: `login`, `client_id`, or a named secret; each with the check of its text."""

    @abstractmethod
    def add(self, request: Request, values: Values) -> Request:
        """Return a copy of `request` with what this part adds. The parts before it have added theirs."""

    @abstractmethod
    def show(self, request: Request) -> Request:
        """Return a copy of `request` with a placeholder for all that `add` would add."""

    def curl(self, values: Values) -> tuple[CurlOption, ...] | None:  # noqa: ARG002  # for those that override it
        """Return the options that make curl do the same, or None if no fixed option can, as with a signature."""
        return None
