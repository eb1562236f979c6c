"""The authentication that a partner wants in a request, beside the client certificate: a closed list of parts.

Each part is one class in one file of this package, listed in `PARTS`. A profile names those that its partner wants.
They are added in the order of the list, each to a copy of the request so far, so that a signature covers what the
parts before it added.
"""

from functools import reduce
from typing import Final

from msgspec import Struct

from broker.errors import InputError
from broker.model.authentication.basic import Basic
from broker.model.authentication.client_id import ClientId
from broker.model.authentication.interface import CLIENT_ID, LOGIN, PASSWORD, VALUES, Part, Request, Values
from broker.model.secret import Secret

__all__ = ["CLIENT_ID", "LOGIN", "PASSWORD", "Basic", "ClientId", "Part", "Request", "Values"]  # and what follows

PARTS: Final[dict[str, type[Part]]] = {part.kind: part for part in (Basic, ClientId)}
DEFAULT: Final[tuple[Part, ...]] = (Basic(), ClientId(query="client_id"))  # of a profile that names no parts


class Authentication(Struct, frozen=True):
    """The parts that one partner wants, and the media type of its answers."""

    parts: tuple[Part, ...] = DEFAULT
    accept: str = "application/json"

    @property
    def needs(self) -> frozenset[str]:
        """Names of the values that a request takes: `login`, `client_id` and named secrets."""
        return frozenset(name for part in self.parts for name in part.needs)

    @property
    def placeholders(self) -> Values:
        """Values that name what belongs in their place, for commands shown to people."""
        secrets = {name: Secret(f"<{name}>") for name in self.needs.difference(VALUES)}
        return Values("<login>", "<client_id>", secrets)

    def check(self, values: Values) -> None:
        """Raise `InputError`, without the value, for the first one that no request can carry."""
        for name in sorted(self.needs):
            problem = self.problem(name, values.reveal(name))
            if problem:
                raise problem

    def problem(self, name: str, value: str) -> InputError | None:
        """Return why no request can carry `value` as `name`; None if one can, or no part needs it."""
        found = (part.needs[name](value) for part in self.parts if name in part.needs)
        return next(filter(None, found), None)

    def signed(self, request: Request, values: Values) -> Request:
        """Return a copy of `request` as it is sent."""
        return reduce(lambda made, part: part.add(made, values), self.parts, request)

    def bare(self, request: Request, values: Values) -> Request:
        """Return a copy of `request` without what the partner's links repeat of the authentication."""
        return reduce(lambda made, part: part.bare(made, values), self.parts, request)

    def shown(self, request: Request) -> Request:
        """Return a copy of `request` with a placeholder for every value."""
        return reduce(lambda made, part: part.show(made), self.parts, request)
