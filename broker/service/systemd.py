"""Report to the service manager that started this process, by systemd's protocol: sd_notify(3)."""

import socket
from enum import Enum

from broker.telemetry import log


class State(Enum):
    """A state of the service, as it is sent."""

    READY = b"READY=1"
    STOPPING = b"STOPPING=1"


def report(state: State, address: str) -> None:
    """Send a state to `address`, the value of NOTIFY_SOCKET. Empty: nothing waits for it."""
    if not address:
        return
    where = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        try:
            made.sendto(state.value, where)
        except OSError as error:
            log.error("the service manager cannot be reached", state=state.name, reason=error.strerror)
