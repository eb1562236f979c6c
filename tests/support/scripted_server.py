"""An HTTP server that answers as a test scripts it, for what a real Vault cannot be made to do on cue."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Misbehaving", "errors", "misbehaving"]


@dataclass(frozen=True)
class Answer:
    """An answer to send. `length` may lie about the body; `hang_up` sends nothing at all."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int = -1
    hang_up: bool = False


def errors(status: int, *texts: str, **headers: str) -> Answer:
    """Return an error as Vault words it."""
    return Answer(status, json.dumps({"errors": texts}).encode(), headers)


@dataclass
class Misbehaving:
    """The server's address, what was asked of it, and with which headers."""

    address: str
    asked: list[str]
    headers: list[Mapping[str, str]]
    probes: int = 0  # requests that are no part of the script: a plain address is asked for its status first


@contextmanager
def misbehaving(*answers: Answer) -> Iterator[Misbehaving]:
    """Serve `answers` in their order, and repeat the last one."""
    seen = Misbehaving("", [], [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(list(answers), seen))
    seen.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(answers: Sequence[Answer], seen: Misbehaving) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/v1/sys/seal-status":
                seen.probes += 1
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                return
            answer = answers[min(len(seen.asked), len(answers) - 1)]
            seen.asked.append(f"{self.command} {self.path}")
            seen.headers.append(dict(self.headers.items()))
            self.close_connection = True
            if answer.hang_up:
                return
            self.send_response(answer.status)
            self.send_header("Content-Length", str(answer.length if answer.length >= 0 else len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_LIST = do_DELETE = _answer  # noqa: N815  # http.server looks for these names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
