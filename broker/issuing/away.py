"""Refuse without a wait while Vault is away: one call at a time still tries it."""

import threading
from collections.abc import Callable
from typing import TypeVar

from broker.errors import PartlyUnavailableError, VaultUnavailableError

Result = TypeVar("Result")


class Away:
    """Whether Vault is away, as the newest call found. Shared by threads."""

    def __init__(self) -> None:
        self._is_away = False
        self._trying = threading.Lock()

    def call(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns; raise `VaultUnavailableError` if Vault is away and another call tries it."""
        if not self._is_away:
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
            self._is_away = is_away
