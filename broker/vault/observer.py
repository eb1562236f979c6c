"""Observer of every write to Vault: tests count writes, or kill the process at one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Phase(Enum):
    """Moment of an observer's call: before a write is sent, or after it succeeded."""

    BEFORE = "before"
    AFTER = "after"


Observer = Callable[[Phase, str], None]  # (phase, API path); an exception ends the write


def unobserved(phase: Phase, path: str) -> None:
    """Do nothing."""
