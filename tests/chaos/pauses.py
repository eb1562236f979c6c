"""Slow a command down, hold it at a gate, and let it die after a write, in the command's own process."""

from __future__ import annotations

import fcntl
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from broker.compose.graph import Wiring
from broker.vault.connection import Connection, Phase

__all__ = ["DIED", "disturb"]

DIED: Final = 137  # the exit code of a command that was ordered to die


def disturb(order: Mapping[str, Any], tell: Callable[[str], None]) -> Wiring:
    """Wait at the gate, then pause at random before reads and writes, as `order` says."""
    pauses = _Pauses(order, tell)
    read = Connection.read

    def slowly(self: Connection, path: str, version: int = 0) -> Any:
        pauses.before("read", path)
        return read(self, path, version)

    def watch(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE:
            pauses.before("write", path)
        else:
            pauses.after_write(path)

    Connection.read = slowly  # type: ignore[method-assign]  # in this process, which ends with the command
    tell("ready")
    _pass(order["gate"])
    return Wiring(observer=watch)


class _Pauses:
    """Points where a command pauses, waits, and dies."""

    def __init__(self, order: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        self._order = order
        self._tell = tell
        self._dice = random.Random(order["seed"])
        self._where, _, nth = order["waits"].rpartition(" ")
        self._left = int(nth or 0)

    def before(self, doing: str, path: str) -> None:
        """Pause before a read or a write."""
        kind, _, part = self._where.partition(" ")
        if kind == doing and part in path:
            self._left -= 1
            if self._left == 0:
                self._tell("waiting")
                _pass(self._order["stop"])
        slowness = self._order["slowness"]
        if slowness and self._dice.random() < 0.4:
            time.sleep(self._dice.expovariate(1 / slowness))

    def after_write(self, path: str) -> None:
        """End the process as if killed, if it is to die after this write."""
        if self._order["dies_after"] and self._order["dies_after"] in path:
            sys.stderr.flush()
            os._exit(DIED)


def _pass(gate: str) -> None:
    """Wait until the gate's lock is free."""
    descriptor = os.open(gate, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.close(descriptor)
