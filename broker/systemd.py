"""Report to the service manager that started this process, by systemd's protocol: sd_notify(3)."""

import socket
import time
from enum import Enum
from typing import Final

from broker.telemetry import log

_LONGEST: Final = 400  # characters of a line


class State(Enum):
    """A state of the service, as it is sent."""

    READY = b"READY=1"
    STOPPING = b"STOPPING=1"
    RELOADING = b"RELOADING=1"  # READY follows
    WATCHDOG = b"WATCHDOG=1"


def report(state: State | str, address: str) -> None:
    """Send a state, or a line for `systemctl status`, to `address`, the value of NOTIFY_SOCKET. Empty: nobody waits."""
    if not address:
        return
    text = state.value if isinstance(state, State) else _line(state)
    if state is State.RELOADING:
        text += b"\nMONOTONIC_USEC=%d" % (time.monotonic_ns() // 1000)
    where = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        try:
            made.sendto(text, where)
        except OSError as error:
            name = state.name if isinstance(state, State) else "STATUS"
            log.error("the service manager cannot be reached", state=name, reason=error.strerror)


def _line(text: str) -> bytes:
    """Return the message for a line; another line in it would be another message."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return f"STATUS={shown[:_LONGEST]}".encode()
