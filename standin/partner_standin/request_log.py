"""The log of what reached the API: who, with which certificate, what, how it ended. No password, no client_id."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

__all__ = ["Entry", "RequestLog"]

KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, or one handshake that failed (then `method` and `path` are empty).

    `login` is there only once the password fitted or where it names a known account: people do type a password
    where the login belongs. `serial` is the client certificate's, lower-case hex. `path` has no query.
    """

    number: int
    at: datetime
    outcome: str
    status: int = 0
    login: str = ""
    application: str = ""
    serial: str = ""
    tls: str = ""
    method: str = ""
    path: str = ""


class RequestLog:
    """The last 10,000 entries, numbered from 1 without a gap. Any thread may write and read."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._count = 0

    def note(
        self,
        outcome: str,
        *,
        status: int = 0,
        login: str = "",
        application: str = "",
        serial: str = "",
        tls: str = "",
        method: str = "",
        path: str = "",
    ) -> None:
        """Add an entry, with the time and the next number."""
        with self._lock:
            self._count += 1
            self._entries.append(
                Entry(self._count, self._clock(), outcome, status, login, application, serial, tls, method, path)
            )

    def entries(self, *, since: int = 0, login: str = "") -> tuple[Entry, ...]:
        """Return entries with a number above `since`, of one login or of all."""
        with self._lock:
            return tuple(e for e in self._entries if e.number > since and (not login or e.login == login))

    def clear(self) -> None:
        """Forget the entries; numbers go on."""
        with self._lock:
            self._entries.clear()
