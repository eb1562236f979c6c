"""What a request to the desk is, and what it turns to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import msgspec

from broker.standin.answers import JSON, Answer
from broker.standin.authorities import Authorities
from broker.standin.desk import Desk
from broker.standin.faults import Faults
from broker.standin.journal import Journal
from broker.standin.registry import Registry

__all__ = ["Asked", "Parts", "Row", "json_answer"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """The services that the desk's HTTP handlers use."""

    desk: Desk
    registry: Registry
    faults: Faults
    journal: Journal
    authorities: Authorities
    clock: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the desk."""

    parts: Parts
    url: str
    body: bytes
    query: Mapping[str, str]

    def read(self, kind: type[T]) -> T:
        """Return the body as `kind`; raise `ValueError` where it is no such JSON."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError:  # its own words would quote the body
            raise ValueError("the body is not the JSON this takes") from None


Row: TypeAlias = "tuple[str, str, Callable[[Asked, tuple[str, ...]], Answer]]"


def json_answer(document: Any, status: int = 200) -> Answer:
    """Return `document` as JSON, one line."""
    return Answer(status, msgspec.json.encode(document) + b"\n", JSON)
