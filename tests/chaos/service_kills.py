"""Kill a service at one of its writes of a document to Vault, in its own process."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any, Final

from broker.compose.graph import Wiring
from broker.vault.connection import Phase

__all__ = ["disturb"]

_DOCUMENT: Final = "/data/"


def disturb(order: Mapping[str, Any], _tell: object) -> Wiring:
    """Note every write, and end the process `order["phase"]` write number `order["at"]`; 0: none."""
    counts = {phase: itertools.count(1) for phase in Phase}
    trace = os.open(f"{order['folder']}/trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    turn = threading.Lock()

    def observer(phase: Phase, path: str) -> None:
        if _DOCUMENT not in path:
            return
        with turn:
            os.write(trace, json.dumps([phase.value, path]).encode() + b"\n")
            if phase.value == order.get("phase") and next(counts[phase]) == order.get("at"):
                os.kill(os.getpid(), signal.SIGKILL)

    return Wiring(observer=observer)
