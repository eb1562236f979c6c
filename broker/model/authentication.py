"""How a partner wants a request to say who sends it, beside the client certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Authentication", "ClientId", "Place"]


class Place(Enum):
    """Where the client_id travels."""

    QUERY = "query"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class ClientId:
    """The name of the query parameter or header that carries the client_id."""

    place: Place = Place.QUERY
    name: str = "client_id"


@dataclass(frozen=True, slots=True)
class Authentication:
    """What is added to every request. `client_id` is None where the partner knows no such thing."""

    basic: bool = True
    client_id: ClientId | None = field(default_factory=ClientId)
    accept: str = "application/json"
