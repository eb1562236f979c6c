"""HTTP over a unix socket, for urllib3."""

import socket
from functools import partial
from pathlib import Path
from typing import Any, Final

from urllib3 import PoolManager
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

URL: Final = "http://localhost"  # stands in Host and in URLs for a socket


def connected_by(pool: PoolManager, path: str | Path) -> PoolManager:
    """Return `pool`, which now sends each request for http:// to the socket at `path`."""
    classes: dict[str, Any] = {"http": partial(_SocketPool, path=str(path))}
    pool.pool_classes_by_scheme = classes
    return pool


class _SocketConnection(HTTPConnection):
    def __init__(self, *args: Any, path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path

    def _new_conn(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.settimeout(self.timeout)
            channel.connect(self._path)
        except OSError:
            channel.close()
            raise
        return channel


class _SocketPool(HTTPConnectionPool):
    ConnectionCls = _SocketConnection
