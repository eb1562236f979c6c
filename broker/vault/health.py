"""Health of Vault and rights of the roles there, for `doctor` and `vault status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.errors import VaultUnavailableError
from broker.model.role import Role
from broker.vault.connection import Connection
from broker.vault.settings import VaultSettings

_GLANCE: Final = 3.0  # seconds
# a capability and a path below the mount; policies/ has all of them
_NEEDED: Final[Mapping[Role, tuple[str, ...]]] = {
    Role.SERVER: (
        "read data/accounts/x",
        "read data/keys/x/1",
        "read data/evidence/accounts/x/00000001",
        "create data/evidence/issued/x/1",
    ),
    Role.ROTATOR: ("update data/accounts/x", "create data/keys/x/1", "update destroy/keys/x/1"),
    Role.CANARY: (
        "update data/accounts/x",
        "read data/keys/x/1",
        "read data/passwords/x/1",
        "read data/evidence/accounts/x/00000001",
    ),
    Role.OPERATOR: ("create data/accounts/x", "list metadata/accounts/", "create data/passwords/x/1"),
    Role.AUDITOR: ("read data/accounts/x", "list metadata/evidence/issued/"),
    Role.ANCHOR: ("create data/evidence/heads/1",),
}


@dataclass(frozen=True, slots=True)
class Health:
    """An unsealed Vault that answers."""

    version: str
    now: datetime | None  # by its clock, to the second; None if its answer has no date


def health(settings: VaultSettings) -> Health:
    """Ask `sys/seal-status`, without a token or namespace; raise `VaultUnavailableError`, for a sealed Vault too.

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


def lacking(vault: Connection, role: Role) -> list[str]:
    """Return the rights that `role` needs and that the token of `vault` lacks."""
    needed = {need: f"{vault.settings.mount}/{need.partition(' ')[2]}" for need in _NEEDED[role]}
    answer = vault.ask("POST", "sys/capabilities-self", {"paths": list(needed.values())})
    granted = answer.get("data") or answer
    return [need for need, path in needed.items() if not {need.split()[0], "root"} & set(granted.get(path) or ())]
