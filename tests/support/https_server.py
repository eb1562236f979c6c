"""An HTTPS server on loopback for what others are asked: keys, reviews of Kubernetes tokens, OAuth tokens."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from tests.support.loopback import server_certificate

__all__ = ["https_server", "token_endpoint", "token_review"]

# Path and body of a request (JSON or a form; None: a GET) to the JSON of the answer; None: 404
Answer = Callable[[str, Any], Any]
Form = dict[str, list[str]]

REVIEW: Final = "/apis/authentication.k8s.io/v1/tokenreviews"


@contextmanager
def https_server(folder: Path, answer: Answer) -> Iterator[str]:
    """Yield the URL of a server that answers JSON; `folder` gets `ca.crt`, which verifies it."""
    certificate, key = server_certificate(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            is_form = self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            self._answer(parse_qs(body) if is_form else json.loads(body))

        def _answer(self, body: Any) -> None:
            found = answer(self.path, body)
            text = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
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
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def token_review(accounts: dict[str, str]) -> Answer:
    """Return the answers of a Kubernetes API server: `accounts` maps a token to the NAMESPACE/NAME that has it.

    Source: Kubernetes API, TokenReview of authentication.k8s.io/v1.
    """

    def answer(path: str, body: Any) -> Any:
        if path != REVIEW or body is None:
            return None
        namespace, _, name = accounts.get(body["spec"]["token"], "").partition("/")
        if not name:
            return {**body, "status": {"authenticated": False, "error": "unknown"}}
        user = {
            "username": f"system:serviceaccount:{namespace}:{name}",
            "uid": f"uid-{namespace}-{name}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
        }
        audiences = body["spec"].get("audiences", [])
        return {**body, "status": {"authenticated": True, "user": user, "audiences": audiences}}

    return answer


@contextmanager
def token_endpoint(
    folder: Path, answer: Mapping[str, object] | Callable[[], Mapping[str, object]]
) -> Iterator[tuple[str, list[Form]]]:
    """Yield the URL of an OAuth token endpoint, and the forms that it was sent. `answer` is what it says each time."""
    forms: list[Form] = []

    def tokens(_: str, form: Form) -> Mapping[str, object]:
        forms.append(form)
        return answer() if callable(answer) else answer

    with https_server(folder, tokens) as url:
        yield url, forms
