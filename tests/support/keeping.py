"""A partner that keeps connections open, and shows which: HTTPS with the stand-in's certificate.

`/slow` answers when `go` is set; `/drip` sends its body in single bytes until the client leaves; `/to?URL` redirects
there; every other path answers an empty list of pages.
"""

from __future__ import annotations

import ssl
import tempfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from partner_standin import Standin

__all__ = ["Keeping"]


class Keeping:
    """`with Keeping(partner) as server:`; `server.url` is the base URL."""

    def __init__(self, partner: Standin) -> None:
        self.go = threading.Event()
        self.changed = threading.Condition()
        self.open: set[int] = set()  # the ports of clients that are connected
        self.waiting = 0  # requests for /slow
        self.got: list[tuple[int, str, str]] = []  # port, target and Authorization of each request
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(partner.authorities.server_chain("good"))
            file.flush()
            self._context.load_cert_chain(file.name)

    def __enter__(self) -> Keeping:
        keeping = self

        class Handler(_Handler):
            server_of = keeping

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/v3"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def until(self, true: Any) -> None:
        """Return once `true` is true."""
        with self.changed:
            assert self.changed.wait_for(true, 100), (self.open, self.waiting)

    def secured(self, plain: Any) -> ssl.SSLSocket:
        """Return the connection after its handshake."""
        return self._context.wrap_socket(plain, server_side=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    server_of: Keeping
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.request = self.server_of.secured(self.request)
        super().setup()

    def handle(self) -> None:
        keeping, port = self.server_of, self.client_address[1]
        with keeping.changed:
            keeping.open.add(port)
        try:
            with suppress(OSError):
                super().handle()
        finally:
            with keeping.changed:
                keeping.open.discard(port)
                keeping.changed.notify_all()
            with suppress(OSError):
                self.request.close()

    def do_GET(self) -> None:
        keeping = self.server_of
        with keeping.changed:
            keeping.got.append((self.client_address[1], self.path, self.headers.get("Authorization", "")))
            keeping.changed.notify_all()
        path, _, query = self.path.removeprefix("/v3").partition("?")
        if path == "/to":
            self._answer(302, Location=unquote(query.partition("&")[0]))
        elif path == "/drip":
            self._drip()
        else:
            if path == "/slow":
                self._wait()
            self._answer(200)

    def do_PUT(self) -> None:
        """Answer 401 to a stream."""
        self.server_of.got.append((self.client_address[1], self.path, ""))
        while self.rfile.readline() not in (b"0\r\n", b""):
            pass
        self.rfile.readline()
        self._answer(401)

    def _wait(self) -> None:
        keeping = self.server_of
        with keeping.changed:
            keeping.waiting += 1
            keeping.changed.notify_all()
        keeping.go.wait()

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.server_of.go.wait(0.02):
            self.wfile.write(b" ")

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "2", "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Be quiet."""
