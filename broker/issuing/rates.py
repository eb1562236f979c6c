"""Bound how often each consumer may ask, after its right is known: one cannot take the service from the others."""

import time
from collections.abc import Callable
from typing import Final

from broker.errors import RateError
from broker.model.bounded import Bounded

_BURST: Final = 5.0  # seconds of the rate that may come together
_KEPT: Final = 20_000  # consumers in memory


class Rates:
    """A token bucket for each consumer, kept as the time at which it is full again (GCRA)."""

    def __init__(self, a_second: float, uptime: Callable[[], float] = time.monotonic) -> None:
        self._a_second = a_second
        self._uptime = uptime
        self._full: Bounded[str, float] = Bounded(_KEPT)

    def take(self, entity: str) -> None:
        """Count a request of `entity`; raise `RateError` if its bucket is empty. With a rate of 0 none is."""
        if not self._a_second:
            return
        now = self._uptime()
        full = max(self._full.get(entity, now), now) + 1 / self._a_second
        refused = full > now + _BURST
        self._full[entity] = full - 1 / self._a_second if refused else full
        if refused:
            raise RateError(
                f"more than {self._a_second:g} requests a second", hint="wait a second, and renew leases less often"
            )
