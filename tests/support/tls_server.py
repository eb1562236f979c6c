"""A partner that says just what a test wants: a TLS server with the stand-in's certificate, and one answer."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from types import TracebackType

from partner_standin import Standin

__all__ = ["Saying"]


class Saying:
    """`with Saying(partner, answer) as url:` sends `answer` to every client; with b"", closes without a word.

    It listens on while nothing is asked. `got` collects what it was sent. `answer` may be changed meanwhile; with
    `serve`, that answers in its place.
    """

    def __init__(
        self, partner: Standin, answer: bytes, *, serve: Callable[[ssl.SSLSocket], object] | None = None
    ) -> None:
        self.got: list[bytes] = []
        self._say = serve or self._answer
        self.answer = answer
        self._threads: list[threading.Thread] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(partner.authorities.server_chain("good"))
            file.flush()
            self._context.load_cert_chain(file.name)

    def __enter__(self) -> str:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return f"https://127.0.0.1:{self._server.getsockname()[1]}/v3"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in list(self._threads):
            thread.join()

    def received(self, tls: ssl.SSLSocket) -> bytes:
        """Return what was sent: one piece of it."""
        return tls.recv(65536)

    def answered(self, sent: bytes) -> bytes:
        """Return the answer to what was sent."""
        return self.answer

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            with self._context.wrap_socket(connection, server_side=True) as tls:
                self.got.append(self.received(tls))
                if self.got[-1] and self.answer:
                    self._say(tls)
        except OSError:
            return
        finally:
            connection.close()

    def _answer(self, tls: ssl.SSLSocket) -> None:
        tls.sendall(self.answered(self.got[-1]))
        tls.settimeout(0.2)
        tls.recv(1)
