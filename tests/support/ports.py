"""Free ports for servers that bind theirs a moment later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

__all__ = ["free_ports"]

_PORTS: Final = (15_000, 30_000)  # below those that the kernel gives to connections, and to sockets that ask for port 0


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that are free."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(*_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports += [port] if port not in ports else []
    return ports
