"""Bounds of the documents that are written more than once: versions kept, and no write without check-and-set.

A mount that `setup` made has them for all. On one that others use too, each document gets its own when it is created.
Documents that are written once (keys, passwords, evidence, signers) need none: their roles may only create them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker.vault import layout

__all__ = ["BOUNDED", "BOUNDS", "BOUNDS_AS_GRANTED", "DESCRIPTION"]

DESCRIPTION: Final = "credential broker"  # of a mount that `setup` made: how it is recognised later
BOUNDED: Final = (layout.ACCOUNTS, layout.CONSUMERS, layout.PROFILES)
BOUNDS: Final[Mapping[str, bool | int]] = MappingProxyType({"cas_required": True, "max_versions": 10})
# Vault compares a number with a policy's allowed_parameters as text, and accepts text for it
BOUNDS_AS_GRANTED: Final = MappingProxyType({"cas_required": True, "max_versions": "10"})
