"""Sessions of every library behind one interface, so that a promise is shown of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import broker.client

__all__ = ["OPENED", "Calls"]


@dataclass(frozen=True, slots=True)
class Calls:
    """A session, whose calls block: `request` returns the status and the JSON of an answer."""

    session: Any
    request: Callable[..., tuple[int, Any]]
    pages: Callable[[str], list[dict[str, Any]]]

    def get(self, path: str = "/fleets") -> int:
        """Return the status of a GET."""
        return self.request("GET", path)[0]


@contextmanager
def _requests(root: Path, **options: Any) -> Iterator[Calls]:
    with broker.client.open(root, **options) as session:

        def request(method: str, path: str, **given: Any) -> tuple[int, Any]:
            answer = session.request(method, path, **given)
            return answer.status_code, answer.json() if answer.content else None

        yield Calls(session, request, lambda path: list(session.pages(path)))


OPENED: Final[dict[str, Callable[..., AbstractContextManager[Calls]]]] = {"requests": _requests}
