"""Rights that each role needs at least, compared with those that Vault grants: for `doctor` and `vault status`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker.vault.connection import Connection
from broker.vault.policies import Role

__all__ = ["lacking"]

# paths below the mount, and the capability there; policies/ has all of them
_NEEDED: Final[Mapping[Role, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        Role.SERVER: (
            ("data/accounts/x", "read"),
            ("data/keys/x/1", "read"),
            ("data/evidence/accounts/x/00000001", "read"),
            ("data/evidence/issued/x/1", "create"),
        ),
        Role.ROTATOR: (("data/accounts/x", "update"), ("data/keys/x/1", "create"), ("destroy/keys/x/1", "update")),
        Role.CANARY: (
            ("data/accounts/x", "update"),
            ("data/keys/x/1", "read"),
            ("data/passwords/x/1", "read"),
            ("data/evidence/accounts/x/00000001", "read"),
        ),
        Role.OPERATOR: (("data/accounts/x", "create"), ("data/passwords/x/1", "create")),
        Role.AUDITOR: (("data/accounts/x", "read"), ("metadata/evidence/issued/", "list")),
        Role.ANCHOR: (("data/evidence/heads/1", "create"),),
    }
)


def lacking(vault: Connection, role: Role) -> list[str]:
    """Return the rights that `role` needs and that the token of `vault` lacks."""
    paths = {f"{vault.settings.mount}/{path}": right for path, right in _NEEDED[role]}
    answer = vault.ask("POST", "sys/capabilities-self", {"paths": list(paths)})
    listed = answer.get("data") or answer
    return [
        f"{right} {path.removeprefix(f'{vault.settings.mount}/')}"
        for path, right in paths.items()
        if not {right, "root"} & set(listed.get(path) or ())
    ]
