"""Bounds of the documents that are written more than once: versions kept, and no write without check-and-set.

A mount that `setup` made has them for all. On one that others use too, each document gets its own, when it is created.
What is written once (keys, passwords, evidence, signers) needs none: its role may create, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from broker.errors import DeniedError
from broker.vault import layout
from broker.vault.connection import Connection, Document
from broker.vault.responses import field_of

__all__ = ["BOUNDED", "BOUNDS", "DESCRIPTION", "write_bounded"]

DESCRIPTION: Final = "credential broker"  # of a mount that `setup` made: how it is known later
BOUNDED: Final = (layout.ACCOUNTS, layout.CONSUMERS, layout.PROFILES)
BOUNDS: Final[Mapping[str, bool | int]] = MappingProxyType({"cas_required": True, "max_versions": 10})
# Vault compares a number with a policy's allowed_parameters as text, and takes it as such
_AS_GRANTED: Final[Document] = MappingProxyType({"cas_required": True, "max_versions": str(BOUNDS["max_versions"])})


def write_bounded(vault: Connection, path: str, data: Document, *, replacing: int) -> None:
    """Write as `Connection.write`; bound a new document where its mount is not ours.

    A process killed between the two leaves a document without bounds; the next `setup` sets them.
    """
    needs_bounds = replacing == 0 and _is_shared(vault)
    vault.write(path, data, replacing=replacing)
    if needs_bounds:
        with suppress(DeniedError):  # the policies are of before the mount was adopted; `setup` renews them
            vault.call("POST", f"{vault.settings.mount}/metadata/{path}", _AS_GRANTED)


def _is_shared(vault: Connection) -> bool:
    """Return whether the mount is somebody else's. Vault answers this to all who may do anything below it."""
    try:
        answer = vault.ask("GET", f"sys/internal/ui/mounts/{vault.settings.mount}")
    except DeniedError:
        return False
    return field_of(answer, "data", "description") not in (None, DESCRIPTION)
