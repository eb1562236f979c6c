"""Health of Vault, asked without a token: every node answers, a standby and a sealed one too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.errors import VaultUnavailableError
from broker.vault.connection import Connection
from broker.vault.settings import VaultSettings

__all__ = ["Health", "health"]

_GLANCE: Final = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Health:
    """An unsealed Vault that answers."""

    version: str
    now: datetime | None  # by its clock, to the second; None if its answer has no date


def health(settings: VaultSettings) -> Health:
    """Ask `sys/seal-status`, without a namespace; raise `VaultUnavailableError`, for a sealed Vault too.

    Not `sys/health`: a standby answers it with 429, as if it were overloaded. Waits at most three seconds.
    """
    vault = Connection(replace(settings, namespace="", patience=min(settings.patience, _GLANCE)))
    try:
        status = vault.ask("GET", "sys/seal-status")
    finally:
        vault.close()
    if status.get("sealed"):
        raise VaultUnavailableError("Vault is sealed", hint="unseal it: bao operator unseal, or vault operator unseal")
    return Health(str(status.get("version", "?")), vault.their_clock)
