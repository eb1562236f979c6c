"""HTTP sessions for Vault over TCP or a unix socket, with the TLS settings of Vault's own tools."""

from __future__ import annotations

import socket
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

from broker.errors import InputError, VaultUnavailableError
from broker.network import UNREADABLE, TooMuchError
from broker.paths import place
from broker.vault.settings import VaultSettings

__all__ = ["base_url", "new_session", "redirected", "whole"]

_SOCKET_URL: Final = "http://localhost"  # stands in Host and in URLs for a unix socket
_THREADS: Final = 64  # that may keep a connection open for their next request
_LARGEST: Final = 16 * 1024 * 1024  # bytes of an answer: a list of 100,000 names has 4 MB
_PIECE: Final = 64 * 1024


def base_url(settings: VaultSettings) -> str:
    """Return the beginning of every URL."""
    return _SOCKET_URL if settings.socket else settings.address


def new_session(settings: VaultSettings) -> requests.Session:
    """Return a session for all threads. It takes nothing from the environment (no proxy, CA bundle, .netrc), no cookie.

    Raise `InputError` if a file of the settings is missing, or is reached by a link of another user.
    """
    _check_files(settings)
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    adapter = HTTPAdapter(pool_maxsize=_THREADS)
    if settings.socket:
        adapter.poolmanager.pool_classes_by_scheme = {"http": partial(_SocketPool, path=settings.socket)}
    elif settings.server_name:
        adapter.poolmanager.connection_pool_kw["server_hostname"] = settings.server_name
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.verify = str(settings.ca_file or settings.ca_directory or "") or True
    if settings.client_certificate and settings.client_key:
        session.cert = (str(settings.client_certificate), str(settings.client_key))
    return session


def whole(response: requests.Response) -> bytes:
    """Return the unpacked body of an answer that was requested as a stream; raise `TooMuchError`."""
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
    """Return the base URL of the node that a standby redirects to; raise `VaultUnavailableError` for others.

    The token travels with the request. So a redirect never leads from TLS to plain text. It leads to another host only
    if a private CA, which signs for this cluster alone, verifies that host.
    """
    old, new = urlsplit(base_url(settings)), urlsplit(location)
    same_host = new.hostname == old.hostname
    private = old.scheme == "https" and bool(settings.ca_file or settings.ca_directory)
    if settings.socket or new.scheme != old.scheme or not new.hostname or not (same_host or private):
        raise VaultUnavailableError(
            "Vault redirects to a node that the broker does not trust",
            hint="point VAULT_ADDR at the active node or a load balancer, or set VAULT_CACERT to the cluster's own CA",
        )
    return f"{new.scheme}://{new.netloc}"


def _check_files(settings: VaultSettings) -> None:
    for path in (settings.ca_file, settings.ca_directory, settings.client_certificate, settings.client_key):
        if path and not path.exists():
            raise InputError(f"{path}, for TLS to Vault, does not exist", hint="see: broker config show")
        if path:
            with place(path, follow=True):  # refuses links of other users: the key is a login
                pass


class _SocketConnection(HTTPConnection):
    def __init__(self, *args: Any, path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path

    def _new_conn(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.settimeout(self.timeout)
            channel.connect(self._path)
        except OSError as error:
            channel.close()
            raise NewConnectionError(self, type(error).__name__) from error
        return channel


class _SocketPool(HTTPConnectionPool):
    ConnectionCls = _SocketConnection
