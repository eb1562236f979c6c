"""Decide how old a document in memory is: nobody announced a change of it, so it is as the change document is (ADR 29).

A writer announces a change before it writes, and notes it after that. So if the change document shows neither, the
document was not changed before the change document was read. A document that is read within `SETTLED` seconds after a
change is as old as its reading: a standby of Vault may have shown it.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from broker.model.recent_changes import RecentChanges

SETTLED: Final = 3.0
_LONGEST: Final = 60.0  # seconds until a document is read again: somebody may have changed it without the broker


class Announced:
    """What the change document said. Changed by one thread, read by others."""

    def __init__(self, uptime: Callable[[], float] = time.monotonic) -> None:
        self._uptime = uptime
        self._number: int | None = None
        self._pending: Mapping[str, int] = {}
        self._changed: dict[str, float] = {}  # by path: when the last change was heard of
        self._lost = math.inf  # anything may have changed until then
        self._at = -math.inf  # the newest reading began

    def take(self, recent: RecentChanges, began: float) -> None:
        """Take note of the change document. Its reading began at `began`."""
        now, known = self._uptime(), self._number is not None and recent.number >= self._number
        changed = recent.since(self._number) if known else None
        if changed is None:
            self._lost, self._changed = now, {}
        else:
            self._changed.update(dict.fromkeys(changed, now))
        self._pending, self._number = recent.pending, recent.number
        self._at = began  # last: what another thread sees is not too new

    def as_of(self, path: str, at: float) -> float:
        """Return the latest time at which the document at `path` is known to be as it was read at `at`."""
        heard = self._at
        settled = max(self._lost, self._changed.get(path, -math.inf)) + SETTLED
        if path in self._pending or at <= settled or self._uptime() - at >= _LONGEST:
            return at
        return max(at, heard)
