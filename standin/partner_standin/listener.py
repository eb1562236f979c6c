"""HTTP for both servers: a thread for each connection, keep-alive, no access log."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from partner_standin.responses import Response

BODY_LIMIT: Final = 1 << 20
POLL: Final = 0.01  # seconds until `stop` is noticed
IDLE: Final = 30.0  # seconds
BITS: Final = 10  # pieces of a slow body


class BadBodyError(Exception):
    """The body cannot be read; `answer` is the refusal."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.outcome)
        self.answer = answer


class Listener(ThreadingHTTPServer):
    """A server that keeps track of its open connections, so that `stop` closes them all."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        self._handler = handler
        self.crashes: list[str] = []  # failures of our own code, for tests
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(POLL,), name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Serve from a separate thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and close every connection."""
        self.shutdown()
        self.server_close()
        self._thread.join(5)
        with self._open_lock:
            left = list(self._open)
        for connection in left:
            _shut(connection)

    def server_bind(self) -> None:
        """Bind without the reverse DNS look-up that `HTTPServer` does."""
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        connection = self.admit(request)
        if connection is None:
            return
        with self._open_lock:
            self._open.add(connection)
        try:
            self._handler(connection, client_address, self)
        finally:
            with self._open_lock:
                self._open.discard(connection)
            _shut(connection)
            connection.close()

    def admit(self, request: socket.socket) -> socket.socket | None:
        """Return the connection to use for HTTP, or None if it was closed."""
        return request

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class passes them
        """Record failures of our own code, by type and place only; a peer that went away is not one."""
        _, error, trace = sys.exc_info()
        if error is None or isinstance(error, OSError):
            return
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
        self.crashes.append(f"{type(error).__name__} at {place}")


class Handler(BaseHTTPRequestHandler):
    """Read requests and send `Response`s. A subclass defines `reply()`."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # else a garbled line is answered without a status line, as in 1991
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE

    def reply(self) -> Response:
        """Return the answer to the request just read."""
        raise NotImplementedError

    def version_string(self) -> str:
        """Return a name without Python's version."""
        return "partner-standin"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Log nothing: request lines carry the client_id."""

    def do_GET(self) -> None:
        """Answer any method; the base class looks for one function each."""
        try:
            self.send(self.reply())
        except BadBodyError as error:
            self.send(error.answer)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - as the base class finds them

    def body(self) -> bytes:
        """Return the body; raise `BadBodyError` if it is chunked, too long, or has a bad Content-Length."""
        if self.headers.get("Transfer-Encoding"):
            raise BadBodyError(_plain(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is required"))
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        length = lengths.pop()
        if lengths or not (length.isascii() and length.isdigit()):
            raise BadBodyError(_plain(HTTPStatus.BAD_REQUEST, "invalid Content-Length"))
        if len(length) > len(str(BODY_LIMIT)) or int(length) > BODY_LIMIT:
            raise BadBodyError(_plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is more than 1 MiB"))
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionError("the peer stopped in the middle of its body")
        return data

    def send(self, answer: Response) -> None:
        """Send `answer`, with its mishap."""
        if answer.mishap == "garbage":
            self.wfile.write(b"\x00\x01\x02 SMTP ready\r\n" * 4)
            self.close_connection = True
            return
        self.send_response(answer.status)
        if answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", answer.media_type)
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.close or self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(answer)

    def _send_body(self, answer: Response) -> None:
        kind, _, seconds = answer.mishap.partition("=")
        if not kind:
            self.wfile.write(answer.body)
            return
        if kind == "drip":
            self._drip(answer.body, float(seconds))
            return
        self.wfile.write(answer.body[: len(answer.body) // 2])
        self.wfile.flush()
        self.close_connection = True
        (reset if kind == "reset" else drain)(self.connection)

    def _drip(self, body: bytes, seconds: float) -> None:
        step = max(1, -(-len(body) // BITS))
        for start in range(0, len(body), step):
            time.sleep(seconds / BITS)
            self.wfile.write(body[start : start + step])
            self.wfile.flush()


def drain(connection: socket.socket) -> None:
    """Close our side without a TLS close, and read until the peer closes, so that it sees an EOF and no reset."""
    try:
        socket.socket.shutdown(connection, socket.SHUT_WR)
        deadline = time.monotonic() + 2
        connection.settimeout(0.5)
        while time.monotonic() < deadline and _raw_read(connection):
            pass
    except OSError:
        return


def reset(connection: socket.socket) -> None:
    """Close by a TCP reset, immediately: file objects of a handler would delay an ordinary close."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())


def _raw_read(connection: socket.socket) -> bytes:
    return socket.socket.recv(connection, 65536)


def _shut(connection: socket.socket) -> None:
    try:
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0)
            connection.unwrap()  # sends close_notify; does not wait for the peer's
        connection.shutdown(socket.SHUT_RDWR)
    except (OSError, ValueError):
        return


def _plain(status: HTTPStatus, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), "text/plain", outcome=f"error {status.value}", close=True)
