"""Rights that each role needs at least, compared with those that Vault grants: for `doctor` and `vault status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broker.vault.connection import Connection
from broker.vault.policies import Role

__all__ = ["lacking"]

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
    Role.OPERATOR: ("create data/accounts/x", "create data/passwords/x/1"),
    Role.AUDITOR: ("read data/accounts/x", "list metadata/evidence/issued/"),
    Role.ANCHOR: ("create data/evidence/heads/1",),
}


def lacking(vault: Connection, role: Role) -> list[str]:
    """Return the rights that `role` needs and that the token of `vault` lacks."""
    needed = {need: f"{vault.settings.mount}/{need.partition(' ')[2]}" for need in _NEEDED[role]}
    answer = vault.ask("POST", "sys/capabilities-self", {"paths": list(needed.values())})
    granted = answer.get("data") or answer
    return [need for need, path in needed.items() if not {need.split()[0], "root"} & set(granted.get(path) or ())]
