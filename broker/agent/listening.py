"""Answer requests for the agent's health, on loopback or a unix socket."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, Final

from broker.agent.health import Health
from broker.network import is_loopback

_MOST: Final = 16  # requests at a time
_LONGEST: Final = 5.0  # seconds for a whole exchange: a client that sends single bytes keeps no place longer
_LOOK: Final = 0.1  # seconds between two looks whether it is closed
_PATHS: Final = "there are /startz, /livez, /readyz and /metrics\n"


class Listener(ThreadingMixIn, HTTPServer):
    """Answers requests at a bound socket. `leave` is called for POST /quit, on our user's socket."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, health: Health, leave: Callable[[], None] | None = None) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.health, self.leave = health, leave
        self._room = threading.BoundedSemaphore(_MOST)
        self._since: dict[socket.socket, float] = {}

    def start(self) -> None:
        """Answer forever, in a thread."""
        threading.Thread(target=self.serve_forever, args=(_LOOK,), name="health", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless there are too many."""
        if self._room.acquire(blocking=False):
            self._since[request] = time.monotonic()
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._since.pop(request, None)
            self._room.release()

    def service_actions(self) -> None:
        """End exchanges that take too long."""
        for request, since in tuple(self._since.items()):
            if time.monotonic() > since + _LONGEST:
                with suppress(OSError):  # it is closed already
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the client has gone."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; that of a unix socket has no address."""
        return self.socket.accept()[0], ("", 0)


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    timeout = 2.0  # seconds to wait for more of a request

    def do_GET(self) -> None:
        """Answer with health or numbers."""
        self._send(*(self.server.health.answer(self._path) or (404, "text/plain", _PATHS)))

    do_HEAD = do_GET  # noqa: N815  # as http.server names it

    def do_POST(self) -> None:
        """End the agent."""
        if self._path != "/quit" or not self.server.leave:
            self._send(405, "text/plain", "POST /quit is for the unix socket\n")
            return
        self.server.leave()
        self._send(202, "text/plain", "ending\n")

    def parse_request(self) -> bool:
        """Read the head; refuse that of a page in a browser that has made another name point here."""
        if not super().parse_request():
            return False
        host = str(self.headers.get("Host", "localhost"))
        if self.server.socket.family == socket.AF_UNIX or is_loopback(_name(host)):
            return True
        self._send(421, "text/plain", "the name in Host is not of this machine: use localhost\n")
        return False

    def log_message(self, *_: Any) -> None:
        """Log nothing: probes ask every few seconds."""

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
