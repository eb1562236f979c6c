"""A proxy before a vault that fails on cue, and remembers what passed.

In front a loopback TCP port or a unix socket, behind it the vault's own unix socket or address. A `Cue` says which
request meets which `Fault`; everything else passes as it is.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from broker.copies import replace

__all__ = ["Cue", "Fault", "Passed", "Proxy", "proxied"]

_LATE: Final = 0.3  # seconds: well within one answer's time
_FOR_EVER: Final = 60.0  # seconds that a hanging request hangs, if the client does not hang up before
_PAGE: Final = b"<!DOCTYPE html><html><body><h1>Please accept the terms of this network</h1></body></html>"
_KEPT: Final = ("Content-Type", "Retry-After", "X-Vault-Index")  # headers of an answer that matter


class Fault(Enum):
    """Fault of one request, described for people."""

    LATE = "the answer is late"
    HANGS_BEFORE = "no answer, and nothing done"
    HANGS_AFTER = "done, and no answer"
    DROPPED = "dropped before it arrives"
    LOST = "done, and the answer lost"
    HALF = "done, and half an answer"
    GARBAGE = "done, and garbage answered"
    WRONG_SHAPE = "done, and JSON of another shape answered"
    PAGE = "200 with a page of HTML, not done"
    EMPTY = "200 with nothing in it, not done"
    TO_ITSELF = "307 to the same node"
    TO_THE_DEAD = "307 to a dead node"
    ELSEWHERE = "307 to a foreign host"
    INVALID = "400"
    DENIED = "403"
    MISSING = "404 as Vault says it"
    MISSING_PAGE = "404 of a web server"
    BEHIND = "412, a standby is behind"
    THROTTLED = "429 with Retry-After"
    NOT_ACTIVE = "500 local node not active"
    ROLLED_BACK = "500 transaction commit failed"
    FAILED = "500"
    BAD_GATEWAY = "502"
    SEALED = "503 sealed"
    GAVE_UP = "done, and 504"
    REVOKED = "the token is revoked"
    STALE = "the version before the newest is read"

    @property
    def passes(self) -> bool:
        """Return whether a broker that asks again gets over it once."""
        return self in _PASSING


_PASSING: Final = frozenset(
    {
        Fault.LATE,
        Fault.DROPPED,
        Fault.LOST,
        Fault.HALF,
        Fault.TO_ITSELF,
        Fault.TO_THE_DEAD,
        Fault.BEHIND,
        Fault.THROTTLED,
        Fault.NOT_ACTIVE,
        Fault.ROLLED_BACK,
        Fault.BAD_GATEWAY,
        Fault.SEALED,
        Fault.GAVE_UP,
        Fault.STALE,
    }
)


@dataclass(frozen=True)
class Cue:
    """`fault` hits the `nth` request, from 1, whose method and path match, and all after it if `lasting`."""

    fault: Fault
    method: str = ".*"  # regular expressions for the whole
    path: str = ".*"
    nth: int = 1
    lasting: bool = False

    def meant(self, method: str, path: str) -> bool:
        return bool(re.fullmatch(self.method, method) and re.fullmatch(self.path, path))


@dataclass(frozen=True)
class Passed:
    """A request, its fault, and the status that was answered: 0 for none."""

    method: str
    path: str
    fault: Fault | None
    status: int

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0  # how many bytes of the body are kept back


@dataclass
class Proxy:
    """Address of the proxy, and its faults. `revoke` ends a token, as its owner or an administrator would."""

    address: str
    behind: str
    revoke: Callable[[str], object]
    passed: list[Passed] = field(default_factory=list)
    _cues: dict[Cue, int] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    def plan(self, *cues: Cue) -> None:
        """Forget all cues and what has passed, and count from here."""
        with self._turn:
            self._cues = dict.fromkeys(cues, 0)
            self.passed = []

    def _due(self, method: str, path: str) -> Fault | None:
        found = None
        for cue in self._cues:
            if cue.meant(method, path):
                self._cues[cue] += 1
                if self._cues[cue] == cue.nth or (cue.lasting and self._cues[cue] > cue.nth):
                    found = found or cue.fault
        return found

    def serve(self, request: _Request, vault: _Behind) -> _Answer | None:
        """Return the answer to send, or None to hang up."""
        with self._turn:
            fault = self._due(request.method, request.path)
            place = len(self.passed)
            self.passed.append(Passed(request.method, request.path, fault, 0))
        answer = self._suffered(fault, request, vault) if fault else vault.ask(request)
        with self._turn:
            if place < len(self.passed):  # else it was a straggler of the plan before
                self.passed[place] = Passed(request.method, request.path, fault, answer.status if answer else 0)
        return answer

    def _suffered(self, fault: Fault, request: _Request, vault: _Behind) -> _Answer | None:
        if fault in _NOT_DONE:
            return _NOT_DONE[fault]
        match fault:
            case Fault.TO_ITSELF:
                return _Answer(307, headers={"Location": f"{self.address}{request.path}"})
            case Fault.DROPPED:
                return None
            case Fault.HANGS_BEFORE:
                self._closing.wait(_FOR_EVER)
                return None
            case Fault.LATE:
                self._closing.wait(_LATE)
            case Fault.REVOKED if request.headers.get("X-Vault-Token"):
                self.revoke(request.headers["X-Vault-Token"])
        return self._done(fault, vault.previous(request) if fault is Fault.STALE else vault.ask(request))

    def _done(self, fault: Fault, answer: _Answer) -> _Answer | None:
        match fault:
            case Fault.HANGS_AFTER:
                self._closing.wait(_FOR_EVER)
                return None
            case Fault.LOST:
                return None
            case Fault.HALF:
                return replace(answer, cut=(len(answer.body) + 1) // 2) if answer.body else None
        return _DONE.get(fault, answer)


def _errors(status: int, *said: str, **headers: str) -> _Answer:
    return _Answer(status, json.dumps({"errors": said}).encode(), {n.replace("_", "-"): v for n, v in headers.items()})


# Answered without asking Vault
_NOT_DONE: Final[Mapping[Fault, _Answer]] = {
    Fault.PAGE: _Answer(200, _PAGE, {"Content-Type": "text/html"}),
    Fault.EMPTY: _Answer(200),
    Fault.TO_THE_DEAD: _Answer(307, headers={"Location": "http://127.0.0.1:1/v1/"}),
    Fault.ELSEWHERE: _Answer(307, headers={"Location": "http://vault.example/v1/"}),
    Fault.INVALID: _errors(400, "invalid request"),
    Fault.DENIED: _errors(403, "permission denied"),
    Fault.MISSING: _errors(404),
    Fault.MISSING_PAGE: _Answer(404, _PAGE, {"Content-Type": "text/html"}),
    Fault.BEHIND: _errors(412, "required index state not present"),
    Fault.THROTTLED: _errors(429, "request path is rate limited", Retry_After="1"),
    Fault.NOT_ACTIVE: _errors(500, "local node not active but active cluster node not found"),
    Fault.ROLLED_BACK: _errors(500, "1 error occurred:\n\t* transaction commit failed\n\n"),
    Fault.FAILED: _errors(500, "internal error"),
    Fault.BAD_GATEWAY: _Answer(502, _PAGE, {"Content-Type": "text/html"}),
    Fault.SEALED: _errors(503, "Vault is sealed"),
}
# Answered in the place of what Vault said once it was done
_DONE: Final[Mapping[Fault, _Answer]] = {
    Fault.GARBAGE: _Answer(200, b"\x1f\x8b\x00\xff" * 64),
    Fault.WRONG_SHAPE: _Answer(
        200, b'{"data": {"data": "text", "metadata": {"version": "1"}, "keys": {}}, "auth": []}'
    ),
    Fault.GAVE_UP: _Answer(504, _PAGE, {"Content-Type": "text/html"}),
}


class _Behind:
    """The vault, over a separate connection for each of the clients'."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, request: _Request) -> _Answer:
        """Return the vault's answer; 502 if it is not reached."""
        for _ in range(2):  # the vault closes connections that were idle
            try:
                return self._asked(request)
            except (OSError, http.client.HTTPException):
                self.close()
        return _NOT_DONE[Fault.BAD_GATEWAY]

    def previous(self, request: _Request) -> _Answer:
        """Return a KV document as it was before its newest version; what else was asked for, as it is."""
        newest = self.ask(request)
        if request.method != "GET" or "/data/" not in request.path or newest.status != http.HTTPStatus.OK:
            return newest
        version = json.loads(newest.body)["data"]["metadata"]["version"] - 1
        return self.ask(replace(request, path=f"{request.path}?version={version}")) if version else _errors(404)

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _asked(self, request: _Request) -> _Answer:
        if self._connection is None:
            self._connection = _connected(self._address)
        self._connection.request(request.method, request.path, request.body or None, dict(request.headers))
        response = self._connection.getresponse()
        kept = {name: response.headers[name] for name in _KEPT if name in response.headers}
        return _Answer(response.status, response.read(), kept)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_FOR_EVER)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connected(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path)
    return http.client.HTTPConnection(parts.netloc, timeout=_FOR_EVER)


@contextmanager
def proxied(behind: str, revoke: Callable[[str], object], *, socket_path: Path | None = None) -> Iterator[Proxy]:
    """Yield a proxy before the vault at `behind`, on a free loopback port or at `socket_path`."""
    proxy = Proxy("", behind, revoke)
    server: socketserver.BaseServer
    if socket_path:
        server = _UnixServer(str(socket_path), _handler(proxy, tcp=False))
        proxy.address = f"unix://{socket_path}"
    else:
        tcp = _Server(("127.0.0.1", 0), _handler(proxy, tcp=True))
        proxy.address = f"http://127.0.0.1:{tcp.server_port}"
        server = tcp
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy._closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for every one: none outlives its test
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Say nothing where a client hung up."""


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False

    def handle_error(self, *_: Any) -> None:
        """Say nothing where a client hung up."""


def _handler(proxy: Proxy, *, tcp: bool) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = tcp
        timeout = 1.0  # how long a kept connection may idle, so that closing does not wait for it

        def setup(self) -> None:
            super().setup()
            self._vault = _Behind(proxy.behind)

        def finish(self) -> None:
            self._vault.close()
            super().finish()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {n: v for n, v in self.headers.items() if n.lower() not in _HOP}
            answer = proxy.serve(_Request(self.command, self.path, headers, body), self._vault)
            if answer is None or answer.cut:
                self.close_connection = True
            if answer is not None:
                self.wfile.write(_rendered(answer))

        do_GET = do_POST = do_PUT = do_LIST = do_DELETE = _answer  # noqa: N815  # http.server looks for these names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


_HOP: Final = ("host", "connection", "content-length", "accept-encoding", "keep-alive")


def _rendered(answer: _Answer) -> bytes:
    """Return the answer as bytes, so that it goes out in one piece."""
    lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if answer.status != http.HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(answer.body)}")
    whole = "\r\n".join([*lines, "", ""]).encode() + answer.body
    return whole[: len(whole) - answer.cut]
