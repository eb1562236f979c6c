"""Log of the requests to the API: login, certificate, operation, outcome. No password, no client_id."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, or one handshake that failed (then `method` and `path` are empty).

    `login` is set only if the password was right or the account is known: people type passwords in place of logins.
    `serial` is the client certificate's, lower-case hex. `path` has no query.
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
    """The last 10,000 entries, numbered from 1 without a gap. Thread-safe."""

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
        """Remove the entries; numbering continues."""
        with self._lock:
            self._entries.clear()
