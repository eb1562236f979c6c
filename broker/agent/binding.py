"""The sockets at which the agent answers for its health. Clients may connect before it answers."""

import os
import socket
from pathlib import Path
from typing import Final

from broker.errors import InputError
from broker.network import is_listening, is_loopback

_WAITING: Final = 16  # connections that are not yet accepted


def bound_to(address: str) -> socket.socket:
    """Return a socket at HOST:PORT of this machine; raise `InputError`."""
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isdecimal() or not is_loopback(host):
        raise InputError(f"agent.listen {address[:80]!r} is not a loopback address", hint='listen = "127.0.0.1:8253"')
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise InputError(f"cannot listen on {address}: {reason.lower()}", hint="choose another port") from None


def bound_at(path: Path) -> socket.socket:
    """Return a unix socket that our user alone may use, in place of one that a killed process left."""
    if is_listening(path):
        raise InputError(f"another process listens on {path}", hint="choose another agent.socket")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(_WAITING)
    except OSError as error:
        made.close()
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen on {path}: {reason}", hint="see its directory: ls -ld") from None
    return made
