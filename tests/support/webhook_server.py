"""An HTTPS server on loopback that takes webhooks, with a CA of its own. It answers what a test wants."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.loopback import server_certificate

__all__ = ["OK", "Call", "WebhookServer", "webhook_server"]

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookServer:
    """Its address, its CA, what arrived, and what it answers: bytes, or a function that writes to the connection."""

    url: str
    ca_file: Path
    calls: list[Call] = field(default_factory=list)
    answer: bytes | Callable[[ssl.SSLSocket], object] = OK


@contextmanager
def webhook_server(folder: Path) -> Iterator[WebhookServer]:
    """Yield a running server; `folder` gets its certificate and CA."""
    certificate, key = server_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    found = WebhookServer(f"https://localhost:{listener.getsockname()[1]}/hook", folder / "ca.crt")
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=_serve, args=(context, connection, found)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield found
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()


def _serve(context: ssl.SSLContext, connection: socket.socket, found: WebhookServer) -> None:
    connection.settimeout(20)
    with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls:
        file = tls.makefile("rb")
        line = file.readline().decode().strip()
        headers = {}
        while (each := file.readline().decode().strip()) != "":
            name, _, value = each.partition(": ")
            headers[name] = value
        body = file.read(int(headers.get("Content-Length", "0")))
        found.calls.append(Call(line, headers, body))
        if callable(found.answer):
            found.answer(tls)
        else:
            tls.sendall(found.answer)
