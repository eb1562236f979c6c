"""Report to the service manager that started this process, by systemd's protocol: sd_notify(3)."""

import socket
import time
from enum import Enum

from broker.telemetry import log


class State(Enum):
    """A state of the service, as it is sent."""

    READY = b"READY=1"
    STOPPING = b"STOPPING=1"
    RELOADING = b"RELOADING=1"  # READY follows
    WATCHDOG = b"WATCHDOG=1"


def report(state: State, address: str) -> None:
    """Send a state to `address`, the value of NOTIFY_SOCKET. Empty: nothing waits for it."""
    if not address:
        return
    text = state.value
    if state is State.RELOADING:
        text += b"\nMONOTONIC_USEC=%d" % (time.monotonic_ns() // 1000)
    where = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        try:
            made.sendto(text, where)
        except OSError as error:
            log.error("the service manager cannot be reached", state=state.name, reason=error.strerror)
