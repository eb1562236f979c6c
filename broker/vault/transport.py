"""HTTP sessions towards Vault: a unix socket or TCP, with TLS as Vault's own tools have it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from broker.errors import InputError, VaultUnavailableError
from broker.network import UNREADABLE, Deadline, InTime, TooMuchError, connected
from broker.paths import place
from broker.vault.settings import VaultSettings

__all__ = ["SOCKET_URL", "base_url", "new_session", "redirected", "whole"]

SOCKET_URL: Final = "http://localhost"  # what stands in Host and in URLs when the way is a unix socket
_LARGEST: Final = 16 * 1024 * 1024  # bytes of an answer: a list of 100,000 names has 4 MB
_PIECE: Final = 64 * 1024


def base_url(settings: VaultSettings) -> str:
    """Return the URL to build requests on."""
    return SOCKET_URL if settings.socket else settings.address


def new_session(settings: VaultSettings) -> requests.Session:
    """Return a session that takes nothing from the environment (no proxy, no CA bundle, no .netrc).

    Raise `InputError` where a file of the settings is not there, or behind a link of another user.
    """
    _check_files(settings)
    session = requests.Session()
    session.trust_env = False
    if settings.socket:
        session.mount("http://", _SocketAdapter(settings.socket))
        return session
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(settings.server_name))
    session.verify = str(settings.ca_file or settings.ca_directory or "") or True
    if settings.client_certificate and settings.client_key:
        session.cert = (str(settings.client_certificate), str(settings.client_key))
    return session


def whole(response: requests.Response) -> bytes:
    """Return the body of an answer that was asked for as a stream, unpacked; raise `TooMuchError`."""
    body = bytearray()
    try:
        for piece in response.iter_content(_PIECE):
            body += piece
            if len(body) > _LARGEST:
                raise TooMuchError
    except UNREADABLE:
        raise requests.exceptions.ChunkedEncodingError from None
    return bytes(body)


def redirected(location: str, settings: VaultSettings) -> str:
    """Return the base URL of the node that a standby points to; raise `VaultUnavailableError` if we do not follow.

    The token goes with us. So never from TLS to plain text, and to another host only where a private CA, which signs
    for this cluster alone, vouches for it.
    """
    old, new = urlsplit(base_url(settings)), urlsplit(location)
    same_host = new.hostname == old.hostname
    private = old.scheme == "https" and bool(settings.ca_file or settings.ca_directory)
    if settings.socket or new.scheme != old.scheme or not new.hostname or not (same_host or private):
        raise VaultUnavailableError(
            "Vault points to a node that the broker does not follow it to",
            hint="point VAULT_ADDR at the active node or a load balancer, or set VAULT_CACERT to the cluster's own CA",
        )
    return f"{new.scheme}://{new.netloc}"


def _check_files(settings: VaultSettings) -> None:
    for path in (settings.ca_file, settings.ca_directory, settings.client_certificate, settings.client_key):
        if path and not path.exists():
            raise InputError(f"{path}, for TLS to Vault, is not there", hint="see VAULT_CACERT and its kin")
        if path:
            with place(path, follow=True):  # refuses links of other users: the key is a login
                pass


class _InTime(InTime):
    largest: ClassVar[float] = _LARGEST


class _Connection(HTTPConnection):
    response_class = _InTime

    def _new_conn(self) -> socket.socket:
        return _opened(self, partial(connected, self.host, self.port))


class _TlsConnection(HTTPSConnection):
    response_class = _InTime

    def _new_conn(self) -> socket.socket:
        return _opened(self, partial(connected, self.host, self.port))


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Keeps to deadlines; asks for, and verifies, another name than the address has (VAULT_TLS_SERVER_NAME)."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self._server_name or None, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class _SocketAdapter(HTTPAdapter):
    """Speaks HTTP through one unix socket, whatever host the URL names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = _SocketPool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


class _SocketPool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.ConnectionCls = _connection_class(path)  # type: ignore[assignment]  # urllib3 calls it, and no more


def _connection_class(path: str) -> Callable[..., HTTPConnection]:
    def connection(**kwargs: Any) -> HTTPConnection:
        return _SocketConnection(path, **kwargs)

    return connection


class _SocketConnection(HTTPConnection):
    response_class = _InTime

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._path = path

    def _new_conn(self) -> socket.socket:
        return _opened(self, self._connected)

    def _connected(self, deadline: Deadline) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.settimeout(deadline.left)
            channel.connect(self._path)
        except OSError:
            channel.close()
            raise
        return channel


def _opened(connection: HTTPConnection, connect: Callable[[Deadline], socket.socket]) -> socket.socket:
    try:
        return connect(Deadline(float(connection.timeout or 0)))
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, type(error).__name__) from error
