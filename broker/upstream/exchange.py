"""One HTTP/1.1 exchange over one fresh TLS connection, within one deadline: it tells how far it came.

Lower than requests on purpose: a canary must know whether the handshake or the first read failed, and must not wait
for a server that sends a byte now and then.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import traceback
from dataclasses import dataclass
from email.message import Message
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

from broker.network import UNREADABLE, Deadline, Reader, TooMuchError, connected
from broker.partners.verdict import ProbeFacts, Where
from broker.upstream.errors import facts_of

__all__ = ["Reply", "exchange", "stays_open"]

_LARGEST: Final = 1024 * 1024
_PIECE: Final = 64 * 1024  # bytes that memory is taken for: what the partner announces is its own affair
_LISTEN: Final = 2.0  # seconds; a server that refuses a certificate does so within a round trip


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    tls: str
    status: int
    headers: Message
    body: bytes


def exchange(base_url: str, context: ssl.SSLContext, message: bytes, deadline: Deadline) -> Reply | ProbeFacts:
    """Send `message` once the server is proven to be the partner's, and return its answer, or how far this came."""
    opened = _open(base_url, context, deadline)
    if isinstance(opened, ProbeFacts):
        return opened
    with opened, Reader(opened, deadline, _LARGEST) as reader:
        tls = opened.version() or ""
        try:
            _send(opened, message, deadline)
            return _read(reader, tls, method=message.split(b" ", 1)[0].decode())
        except TooMuchError:
            return ProbeFacts(Where.BODY, tls, detail="the answer is larger than any that was asked for")
        except (OSError, http.client.HTTPException, *UNREADABLE) as error:
            return facts_of(error, Where.BODY if reader.count else Where.FIRST_READ, tls)


def stays_open(base_url: str, context: ssl.SSLContext, deadline: Deadline) -> ProbeFacts:
    """Connect, ask for nothing, and listen for a moment whether the server ends the connection by itself.

    It costs no try of the login, since nothing is sent after the handshake. And since nothing of ours is unread when
    the server closes, an alert arrives that a reset may have swallowed before.
    """
    opened = _open(base_url, context, deadline)
    if isinstance(opened, ProbeFacts):
        return opened
    with opened:
        tls = opened.version() or ""
        try:
            opened.settimeout(min(_LISTEN, deadline.left))
            said = opened.recv(1)
        except TimeoutError:
            return ProbeFacts(Where.FIRST_READ, tls, stays_open=True)
        except OSError as error:
            return facts_of(error, Where.FIRST_READ, tls)
        return ProbeFacts(Where.FIRST_READ, tls, closed=not said)


def _open(base_url: str, context: ssl.SSLContext, deadline: Deadline) -> ssl.SSLSocket | ProbeFacts:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        plain = connected(host, parts.port or 443, deadline)
    except (OSError, UnicodeError) as error:
        return facts_of(error, Where.CONNECT)
    try:
        plain.settimeout(deadline.left)
        return context.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as error:
        plain.close()
        _close_left(error)
        return facts_of(error, Where.HANDSHAKE)


def _close_left(error: Exception) -> None:
    """Close what `wrap_socket` took over and left open, as CPython does where the partner is gone before it begins."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        left = frame.f_locals.get("self")
        if isinstance(left, ssl.SSLSocket):
            left.close()


def _send(connection: ssl.SSLSocket, message: bytes, deadline: Deadline) -> None:
    try:
        connection.settimeout(deadline.left)
        connection.sendall(message)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        return  # why the server closed may still be there to be read


def _read(reader: Reader, tls: str, method: str) -> Reply:
    # HTTPResponse wants nothing of a socket but makefile.
    response = http.client.HTTPResponse(cast("socket.socket", reader), method=method)
    with response:
        response.begin()
        body = b"".join(iter(partial(response.read, _PIECE), b""))
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        return Reply(tls, response.status, response.headers, body)
