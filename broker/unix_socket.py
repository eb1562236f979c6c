"""HTTP over a unix socket, for requests."""

import socket
from functools import partial
from pathlib import Path
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

URL: Final = "http://localhost"  # stands in Host and in URLs for a socket


def connected_by(adapter: HTTPAdapter, path: str | Path) -> HTTPAdapter:
    """Return `adapter`, which now sends each request for http:// to the socket at `path`."""
    adapter.poolmanager.pool_classes_by_scheme = {"http": partial(_SocketPool, path=str(path))}
    return adapter


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
