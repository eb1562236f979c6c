"""Connections of urllib3 to a partner, with one deadline for a request and its whole answer."""

from __future__ import annotations

import socket
from typing import Any, Final

from urllib3 import HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker.network import Deadline, InTime, connected

__all__ = ["Pool", "timeout_of"]

_PIECE: Final = 16 * 1024  # bytes sent between two checks of the deadline


def timeout_of(given: Any, default: tuple[float, float]) -> Timeout:
    """Return `given`, a time-out as requests takes it, as limits of a whole exchange; None means `default`."""
    if isinstance(given, Timeout):
        given = (given.connect_timeout, given.read_timeout)
    pair = given if isinstance(given, tuple) else (given, given)
    connect, whole = (
        one if isinstance(one, int | float) and one else other for one, other in zip(pair, default, strict=True)
    )
    return Timeout(connect=connect, read=whole, total=whole)


class _Response(InTime):
    def begin(self) -> None:
        """Read the head, and drop its malformed lines: urllib3 would log them, with the URL."""
        super().begin()
        self.headers.defects.clear()
        self.headers.set_payload("")


class _Connection(HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        try:
            return connected(self.host, self.port, Deadline(float(self.timeout or 0)))
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(self, type(error).__name__) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request within the time allowed for connecting."""
        self._sent_by = Deadline(float(self.timeout or 0))
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        """Send `data` by the deadline, even if the partner reads single bytes."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self.sock.settimeout(self._sent_by.left)
            super().send(view[start : start + _PIECE])


class Pool(HTTPSConnectionPool):
    """Connections to one partner with deadlines."""

    ConnectionCls = _Connection
