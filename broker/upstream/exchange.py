"""One HTTP/1.1 exchange over a TLS connection, within one deadline. It reports how far the exchange came.

Lower than requests on purpose: a canary must know whether the handshake or the first read failed, and must not wait
for a server that sends single bytes. No exception of ssl, sockets or requests travels past this package.
"""

import http.client
import os
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import Message
from functools import partial
from types import MappingProxyType
from typing import Final, TypeGuard, TypeVar, cast
from urllib.parse import urlsplit

from msgspec import Struct

from broker import network
from broker.copies import replace
from broker.model.authentication import Request
from broker.network import Deadline
from broker.partners.verdict import ProbeFacts, Where
from broker.upstream.credentials import Credentials

_LARGEST: Final = 1024 * 1024
_PIECE: Final = 64 * 1024  # bytes of a read: the length that the partner announces reserves no memory
Found = TypeVar("Found")
_WITH_BODY: Final = ("POST", "PUT", "PATCH")  # they send the length of an empty one too: RFC 9110, section 8.6
_IDLE: Final = 5.0  # seconds for which a connection is kept: a firewall may drop it later, and say nothing
_LISTEN: Final = 2.0  # seconds; a server that refuses a certificate does so within a round trip


class Reply(Struct, frozen=True):
    """A complete answer."""

    status: int
    headers: Message
    body: bytes
    goes_on: bool = False  # the connection


def asked(
    credentials: Credentials, request: Request, deadline: Deadline, largest: int = _LARGEST
) -> Reply | ProbeFacts:
    """Verify the server, sign and send `request`, and return the answer, or how far the exchange came.

    `largest` bytes of a body are read. If the server closed the connection without a reason, a second one that sends
    nothing looks for it.
    """
    message = _message(credentials, request, {"Connection": "close"})
    answer = _connected(credentials, deadline, lambda server: _answer(server, message, deadline, largest))
    return _explained(answer, credentials, deadline)


def _explained(answer: Reply | ProbeFacts, credentials: Credentials, deadline: Deadline) -> Reply | ProbeFacts:
    if not _was_closed(answer):
        return answer
    second = stays_open(credentials, deadline)
    if second.alert:
        return second
    why = "the server closes the connection after the handshake without a reason, even if nothing is sent"
    return replace(answer, stays_open=second.stays_open, detail=why if second.closed else answer.detail)


def _was_closed(answer: Reply | ProbeFacts) -> TypeGuard[ProbeFacts]:
    return isinstance(answer, ProbeFacts) and answer.where is Where.FIRST_READ and answer.closed


class Line:
    """Keeps a connection to the partner for further requests that may all be sent twice."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._server: ssl.SSLSocket | None = None
        self._used = 0.0

    def asked(self, request: Request, deadline: Deadline, largest: int = _LARGEST) -> Reply | ProbeFacts:
        """Return the answer to `request`, or how far the exchange came, as the function `asked` does.

        If the partner has closed the kept connection, the request is sent on another one.
        """
        message = _message(self._credentials, request)
        if time.monotonic() > self._used + _IDLE or self._credentials.has_expired(datetime.now(UTC)):
            self.close()
        if self._server:
            answer = self._answer(self._server, message, deadline, largest)
            if not _was_closed(answer):
                return answer
        server = _opened(self._credentials, deadline)
        if isinstance(server, ProbeFacts):
            return server
        return _explained(self._answer(server, message, deadline, largest), self._credentials, deadline)

    def close(self) -> None:
        """Close the connection."""
        if self._server:
            self._server.close()
            self._server = None

    def _answer(self, server: ssl.SSLSocket, message: bytes, deadline: Deadline, largest: int) -> Reply | ProbeFacts:
        self._server = server
        answer = _answer(server, message, deadline, largest)
        self._used = time.monotonic()
        if isinstance(answer, ProbeFacts) or not answer.goes_on:
            self.close()
        return answer


def _message(credentials: Credentials, request: Request, more: Mapping[str, str] = MappingProxyType({})) -> bytes:
    ours = {"Host": request.host, "User-Agent": "credential-broker", **more}
    signed = credentials.signed(replace(request, headers={**ours, **request.headers}))
    if signed.body or signed.method in _WITH_BODY:
        signed = signed.with_header("Content-Length", str(len(signed.content)))
    return network.http_request(f"{signed.method} {signed.target}", signed.headers, signed.content)


def stays_open(credentials: Credentials, deadline: Deadline) -> ProbeFacts:
    """Connect, send nothing, and report whether the server closes the connection.

    It costs no login attempt, since nothing is sent after the handshake. With none of our bytes unread when the server
    closes, an alert arrives that a reset may have discarded on the first connection.
    """
    return _connected(credentials, deadline, lambda server: _listened(server, deadline))


def _connected(
    credentials: Credentials, deadline: Deadline, act: Callable[[ssl.SSLSocket], Found]
) -> Found | ProbeFacts:
    """Verify the server, and return what `act` returns, or why it could not be called."""
    server = _opened(credentials, deadline)
    if isinstance(server, ProbeFacts):
        return server
    try:
        with server:
            return act(server)
    except (OSError, ValueError) as error:
        return _facts_of(error, Where.FIRST_READ)


def _opened(credentials: Credentials, deadline: Deadline) -> ssl.SSLSocket | ProbeFacts:
    """Return a connection to the server, which is verified, or why there is none."""
    parts, where = urlsplit(credentials.base_url), Where.PROXY if credentials.proxy else Where.CONNECT
    try:
        with network.connected(parts.hostname or "", parts.port or 443, deadline, credentials.proxy) as plain:
            where = Where.HANDSHAKE
            return credentials.context.wrap_socket(plain, server_hostname=parts.hostname)
    except (OSError, ValueError) as error:
        _close_leaked(error)
        return _facts_of(error, where)


def _answer(server: ssl.SSLSocket, message: bytes, deadline: Deadline, largest: int) -> Reply | ProbeFacts:
    with network.Reader(server, deadline, largest) as reader:
        try:
            _send(server, message, deadline)
            return _read(reader, method=message.split(b" ", 1)[0].decode())
        except network.TooMuchError:
            return ProbeFacts(Where.BODY, detail=f"the answer is larger than {largest} bytes")
        except network.FAULTS as error:
            return _facts_of(error, Where.BODY if reader.count else Where.FIRST_READ)


def _listened(server: ssl.SSLSocket, deadline: Deadline) -> ProbeFacts:
    server.settimeout(min(_LISTEN, deadline.left))
    try:
        return ProbeFacts(Where.FIRST_READ, closed=not server.recv(1))
    except TimeoutError:
        return ProbeFacts(Where.FIRST_READ, stays_open=True)


def _close_leaked(error: Exception) -> None:
    """Close the socket that CPython's `wrap_socket` leaves open if the partner is gone before the handshake."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        leaked = frame.f_locals.get("self")
        if isinstance(leaked, ssl.SSLSocket):
            leaked.close()


def _send(connection: ssl.SSLSocket, message: bytes, deadline: Deadline) -> None:
    try:
        connection.settimeout(deadline.left)
        connection.sendall(message)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        return  # the reason may still be there to read


def _read(reader: network.Reader, method: str) -> Reply:
    # Of a socket, HTTPResponse uses `makefile` alone
    with http.client.HTTPResponse(cast("socket.socket", reader), method=method) as response:
        response.begin()
        body = b"".join(iter(partial(response.read, _PIECE), b""))
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        return Reply(response.status, response.headers, body, not response.will_close)


def _facts_of(error: Exception, where: Where) -> ProbeFacts:
    """Return the facts of `error`, which ended a call at `where`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeFacts(where, verify_error=error.verify_message or "the server's certificate was not accepted")
    if isinstance(error, TimeoutError):
        return ProbeFacts(where, timed_out=True, detail=f"no answer in time ({where.value})")
    if isinstance(error, http.client.IncompleteRead):
        return ProbeFacts(Where.BODY, closed=True, detail="the answer is incomplete")
    if network.is_closed(error):
        return ProbeFacts(
            where, closed=True, detail=f"the server closed the connection without a reason ({where.value})"
        )
    if alert := network.alert_of(error):
        return ProbeFacts(where, alert=alert, detail=f"the server sent the TLS alert '{alert}'")
    return ProbeFacts(Where.BODY if isinstance(error, http.client.HTTPException) else where, detail=_reason(error))


def described(error: Exception) -> str:
    """Return a message about `error`, or about the first error inside it that we know. It quotes nothing."""
    for found in network.behind(error):
        if isinstance(found, ssl.SSLError | OSError | http.client.HTTPException) and type(found) is not OSError:
            facts = _facts_of(found, Where.CONNECT)
            return f"the server was not verified: {facts.verify_error}" if facts.verify_error else facts.detail
    return "the call to the partner failed"


def _reason(error: Exception) -> str:
    if isinstance(error, network.ProxyError):
        return str(error)
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return "the partner's host name was not found"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, (http.client.HTTPException, *network.UNREADABLE)):
        return "the answer is not HTTP"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "the call failed"
