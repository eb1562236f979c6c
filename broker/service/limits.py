"""Bounds on what callers can make a listener hold: connections, the head of a request, and the time that it takes.

uvicorn bounds none of these. A request is refused before it reaches the application; a connection that is cut gets an
answer first, if none is on its way. Sources: RFC 9112 (3.2: Host), RFC 6585 (431), RFC 9110 (408, 421).
"""

import asyncio
import re
import resource
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, cast

from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from broker.errors import BrokerError, BusyError, InputError
from broker.service.asgi import App, Send, respond
from broker.service.problems import problem_answer
from broker.telemetry import log

_CONNECTIONS: Final = 10_000
_RESERVED: Final = 256  # open files for Vault, certificates and the like
_LARGEST_HEAD: Final = 32 * 1024  # bytes: a JWT may have 16 KiB
_LARGEST: Final = 1024 * 1024  # bytes of a request, read or dropped
_ARRIVAL: Final = 10.0  # seconds for a head; for a body that no handler reads, too
_UNREAD: Final = 30.0  # seconds in which a client must take the answers that wait for it
_LINGER: Final = 1.0  # seconds in which more input is dropped, so that the answer is not lost by a reset
_HOST: Final = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
LOOPBACK_NAMES: Final = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})


def raise_open_files() -> int:
    """Allow this process as many open files as the system does; return the number of connections that leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(1, min(_CONNECTIONS, (hard - _RESERVED) * 4 // 5))  # the others are for TLS handshakes


@dataclass(slots=True)
class Guard:
    """Bounds of one listener, and its idle connections, the longest idle first.

    With `hosts`, only these names are served: a page in a browser can reach loopback under a name of its own choice
    (DNS rebinding), and its Host header then has that name.
    """

    connections: int = _CONNECTIONS
    hosts: frozenset[bytes] | None = None
    idle: dict["GuardedProtocol", None] = field(default_factory=dict)
    open: int = 0

    @property
    def handshakes(self) -> int:
        """The most connections that are in a TLS handshake, which come on top."""
        return max(1, self.connections // 4)

    def refusal(self, headers: list[tuple[bytes, bytes]], target: bytes, version: str) -> "Refusal | None":
        """Return why a request with this head is refused, None if it is not."""
        named = [value for name, value in headers if name == b"host"]
        if len(named) != 1 and (named or version != "1.0"):
            return Refusal(400, InputError("the request has no Host header, or several", hint="send exactly one"))
        host = _host(named[0]) if named else None
        if named and not host:
            return Refusal(400, InputError("the Host header is not a host", hint="send Host: NAME[:PORT]"))
        if not target.startswith(b"/"):
            return Refusal(400, InputError("the target of the request is not a path", hint="send GET /PATH HTTP/1.1"))
        if host and self.hosts is not None and host not in self.hosts:
            return Refusal(421, InputError("this address is not served under that Host", hint="use localhost"))
        return None


@lru_cache(1024)
def _host(value: bytes) -> bytes | None:
    """Return the name in a Host header, without the port; None if it has none."""
    found = _HOST.fullmatch(value.lower())
    return found[1] if found else None


class Refusal(Struct, frozen=True):
    """A status, and the error that explains it."""

    status: int
    error: BrokerError

    async def answer(self, _scope: object, _receive: object, send: Send) -> None:
        """Answer a request with it, as an ASGI application, and close the connection."""
        self.note()
        await respond(send, problem_answer(self.error, self.status, {"connection": "close"}))

    def written(self) -> bytes:
        """Return it as an answer to something that is not a request."""
        self.note()
        answer = problem_answer(self.error, self.status, {"connection": "close"})
        lines = [f"{name}: {value}\r\n".encode() for name, value in answer.headers.items()]
        length = f"content-length: {len(answer.body)}\r\n\r\n".encode()
        return b"".join([STATUS_LINE[self.status], *lines, length, answer.body])

    def note(self) -> None:
        """Log it."""
        log.info("refused", status=self.status, code=self.error.kind.value, reason=self.error.message)


_LATE: Final = Refusal(408, InputError("the request did not arrive in time", hint=f"send its head in {_ARRIVAL:g} s"))
_TOO_LARGE: Final = Refusal(
    431, InputError(f"the head of the request is larger than {_LARGEST_HEAD} bytes", hint="send fewer headers")
)
_MALFORMED: Final = Refusal(400, InputError("this is not a request of HTTP/1.1"))
_FULL: Final = Refusal(503, BusyError("too many connections are open", hint="try again later"))


class _InOnePiece:
    """A transport that sends what is written in one turn of the loop together: head and body of an answer."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send `data`, and what follows in this turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection, under a `Guard`.

    A request that arrives in one piece, as nearly all do, costs some counting and no timer.
    """

    def __init__(self, guard: Guard, **more: Any) -> None:
        super().__init__(**more)
        self._guard = guard
        self._application: App = self.app
        self._arrived = 0  # bytes since the last request was complete
        self._unfinished = False  # more of a request must come
        self._in_head = True
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._is_cut = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room by closing the longest idle connection; refuse this one if all are busy."""
        super().connection_made(cast("asyncio.Transport", _InOnePiece(transport, self.loop)))
        self._guard.open = len(self.connections)
        if self._guard.open > self._guard.connections:
            if not self._guard.idle:
                self._is_cut = True
                transport.write(_FULL.written())
                transport.close()
                return
            oldest = next(iter(self._guard.idle))
            del self._guard.idle[oldest]
            oldest.transport.abort()
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._guard.idle.pop(self, None)
        self._cancel_deadline()
        self.resume_writing()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._guard.open = len(self.connections)

    def data_received(self, data: bytes) -> None:
        """Parse `data`; start the clock if a request is incomplete after it."""
        if self._is_cut:
            return
        self._guard.idle.pop(self, None)
        self._unfinished = True
        self._arrived += len(data)
        super().data_received(data)
        if not self._unfinished or self._is_cut:
            return
        if self._arrived > (_LARGEST_HEAD if self._in_head else _LARGEST):
            self._cut(_TOO_LARGE)
        elif self._deadline is None:
            self._deadline = self.loop.call_later(_ARRIVAL, self._late)

    def on_message_begin(self) -> None:
        """Note that a request has begun: perhaps behind another one in the same piece."""
        super().on_message_begin()
        self._unfinished = True

    def on_headers_complete(self) -> None:
        """Pass the request to the application, or to its refusal."""
        self._in_head = False
        refusal = self._guard.refusal(self.headers, self.url, self.parser.get_http_version())
        if self._arrived > _LARGEST_HEAD and self._head_size() > _LARGEST_HEAD:
            refusal = _TOO_LARGE
        self.app = refusal.answer if refusal else self._application
        super().on_headers_complete()
        self.headers = []  # of trailers: they are no headers of the request

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._in_head, self._unfinished, self._arrived = True, False, 0
        if self._deadline is not None:
            self._cancel_deadline()
        super().on_message_complete()
        if self.cycle.response_complete:  # answered before its end
            self._rest()

    def on_response_complete(self) -> None:
        """Count the connection as idle, unless its next request is there."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None and not self._unfinished:
            self._guard.idle[self] = None

    def pause_writing(self) -> None:
        """Give the client some time to read: more answers wait for it than the transport takes."""
        super().pause_writing()
        self._unread = self.loop.call_later(_UNREAD, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, although its client may not have read the last answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # it is the same for every fault
        """Answer what is not HTTP."""
        self._cut(_MALFORMED)

    def _rest(self) -> None:
        self._guard.idle[self] = None
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _late(self) -> None:
        self._deadline = None
        if self._is_cut:
            return
        if self._in_head and not self.flow.read_paused:
            self._cut(_LATE)
        elif not self._in_head and self.cycle.response_complete:
            self.transport.abort()  # it goes on sending a body that nobody wants
        else:  # a handler reads the body, with a deadline of its own; or we do not read
            self._deadline = self.loop.call_later(_ARRIVAL, self._late)

    def _cut(self, refusal: Refusal) -> None:
        """Answer, unless another answer is on its way, and close."""
        self._is_cut = True
        before: RequestResponseCycle | None = self.cycle
        if not self._in_head or (before and not before.response_complete):
            self.transport.abort()
            return
        self.transport.write(refusal.written())
        self.loop.call_later(_LINGER, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
