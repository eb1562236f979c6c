"""An OAuth token endpoint on loopback, over HTTPS: it notes the forms that it was sent."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from tests.support.loopback import server_certificate

__all__ = ["token_endpoint"]

Form = dict[str, list[str]]


@contextmanager
def token_endpoint(
    folder: Path, answer: Mapping[str, object] | Callable[[], Mapping[str, object]]
) -> Iterator[tuple[str, list[Form]]]:
    """Yield the URL and the forms; `folder` gets `ca.crt`, which verifies it. `answer` is what it says each time."""
    certificate, key = server_certificate(folder)
    forms: list[Form] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            forms.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            text = json.dumps(answer() if callable(answer) else answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}", forms
        finally:
            server.shutdown()
            thread.join()
