"""A request to the desk, and the services that its handlers use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from partner_standin.authorities import Authorities
from partner_standin.desk import Desk
from partner_standin.faults import Faults
from partner_standin.registry import Registry
from partner_standin.request_log import RequestLog
from partner_standin.responses import JSON, Response

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """The services that the desk's HTTP handlers use."""

    desk: Desk
    registry: Registry
    faults: Faults
    journal: RequestLog
    authorities: Authorities
    clock: Callable[[], datetime]


_ONE: Final = threading.Lock()  # msgspec crashes if two threads use a class first at the same time


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the desk."""

    parts: Parts
    url: str
    body: bytes
    query: Mapping[str, str]

    def read(self, kind: type[T]) -> T:
        """Return the body as `kind`; raise `ValueError` for any other JSON."""
        try:
            with _ONE:
                return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError:  # its text would quote the body
            raise ValueError("the body is not the expected JSON") from None


Row: TypeAlias = "tuple[str, str, Callable[[Asked, tuple[str, ...]], Response]]"


def json_answer(document: Any, status: int = 200) -> Response:
    """Return `document` as JSON, one line."""
    return Response(status, msgspec.json.encode(document) + b"\n", JSON)
