"""Refuse without a wait while Vault is away: one call at a time still tries it."""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from broker.errors import PartlyUnavailableError, VaultUnavailableError

Result = TypeVar("Result")
_KEPT: Final = 5.0  # seconds without a try, after which nothing is known


class Away:
    """Whether Vault is away, as the newest call found. Shared by threads."""

    def __init__(self, uptime: Callable[[], float] = time.monotonic) -> None:
        self._uptime = uptime
        self._away_until = 0.0
        self._trying = threading.Lock()

    def call(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns; raise `VaultUnavailableError` if Vault is away and another call tries it."""
        if self._uptime() >= self._away_until and not self._trying.locked():
            return self._tried(function)
        if not self._trying.acquire(blocking=False):
            raise VaultUnavailableError("Vault is away", hint="try again later")
        try:
            return self._tried(function)
        finally:
            self._trying.release()

    def _tried(self, function: Callable[[], Result]) -> Result:
        is_away = False
        try:
            return function()
        except VaultUnavailableError as error:
            is_away = error.retryable and not isinstance(error, PartlyUnavailableError)
            raise
        finally:
            self._away_until = self._uptime() + _KEPT if is_away else 0.0
