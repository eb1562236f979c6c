"""Health of Vault and rights of the roles there, for `doctor` and `vault status`."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import VaultUnavailableError
from broker.model.role import Role
from broker.vault.connection import Connection
from broker.vault.errors import field_of, unclear
from broker.vault.policies import ALL, Right, rights, role_policy
from broker.vault.settings import VaultSettings
from broker.vault.transport import SEAL_STATUS

_GLANCE: Final = 3.0  # seconds


class Health(Struct, frozen=True):
    """An unsealed Vault that answers."""

    version: str
    now: datetime | None  # by its clock, to the second; None if its answer has no date


def health(settings: VaultSettings) -> Health:
    """Ask `sys/seal-status`; raise `VaultUnavailableError`, for a sealed or uninitialised Vault too.

    Not `sys/health`: a standby answers it with 429, as if it were overloaded. Waits at most three seconds.
    """
    with closing(Connection(replace(settings, patience=min(settings.patience, _GLANCE)))) as vault:
        status = vault.ask("GET", SEAL_STATUS)
    if not isinstance(status.get("sealed"), bool):
        raise unclear(SEAL_STATUS)
    if status.get("initialized") is False:
        raise VaultUnavailableError("Vault is not initialised", hint="bao operator init, or vault operator init")
    if status.get("sealed"):
        raise VaultUnavailableError("Vault is sealed", hint="unseal it: bao operator unseal, or vault operator unseal")
    return Health(str(status.get("version", "?")), vault.their_clock)


def lacking(vault: Connection, role: Role, pki: Sequence[str] = ()) -> list[str]:
    """Return the rights that the policy of `role` grants and the token of `vault` lacks, as "update on PATH".

    `pki` has the paths where a PKI engine signs for it.

    A role that is limited to some accounts has no right on the secrets of every account. Which accounts these are is
    unknown here, so rights on secrets are reported only if it has some of them.
    """
    mount = vault.settings.mount
    wanted, unlimited = (rights(role_policy(role, mount=mount, accounts=names, pki=pki)) for names in (ALL, ()))
    lacks = missing(vault, wanted)
    on_secrets = set(wanted) - set(unlimited)
    if on_secrets <= set(lacks):
        lacks = [right for right in lacks if right not in on_secrets]
    return by_path(lacks)


def missing(vault: Connection, wanted: Sequence[Right]) -> list[Right]:
    """Return those of `wanted` that the token of `vault` lacks."""
    paths = sorted({path for _, path in wanted})
    answer = vault.ask("POST", "sys/capabilities-self", {"paths": paths})
    granted = {path: field_of(answer, "data", path) for path in paths}
    if not all(isinstance(names, list) for names in granted.values()):
        raise unclear("sys/capabilities-self")
    return [(name, path) for name, path in wanted if not {name, "root"} & set(granted[path])]


def by_path(lacks: Sequence[Right]) -> list[str]:
    """Return rights as "read, update on PATH"."""
    paths = dict.fromkeys(path for _, path in lacks)
    return [f"{', '.join(name for name, on in lacks if on == path)} on {path}" for path in paths]
