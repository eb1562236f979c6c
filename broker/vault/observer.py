"""The one place that every write to Vault passes: here a test counts, or kills."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

__all__ = ["Observer", "Phase", "unobserved"]


class Phase(Enum):
    """When an observer is called: before a write leaves, and once it has been answered well."""

    BEFORE = "before"
    AFTER = "after"


Observer = Callable[[Phase, str], None]  # (phase, API path); what it raises ends the write


def unobserved(phase: Phase, path: str) -> None:
    """Do nothing: what watches writes where no test does."""
