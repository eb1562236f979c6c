"""An SMTP server on loopback that counts: each mail that it has taken, by Message-ID and recipient."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["SmtpPeer", "smtp_peer"]


@dataclass
class SmtpPeer:
    """What was taken: Message-ID and recipients of each mail, in order; a mail that came twice is there twice."""

    port: int = 0
    mails: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        """The Message-IDs of all mails."""
        return {message_id for message_id, _ in self.mails}

    @property
    def settings(self) -> str:
        """The table of broker.toml that sends mails here."""
        return f'[mail.smtp]\nhost = "127.0.0.1"\nport = "{self.port}"\ntls = "none"\nfrom = "broker@acme.example"\n'


@contextmanager
def smtp_peer() -> Iterator[SmtpPeer]:
    """Yield a server that takes every mail."""
    peer = SmtpPeer()

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 peer.example")
            recipients: list[str] = []
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"QUIT":
                    self._say("221 bye")
                    return
                if verb == b"RCPT":
                    recipients.append(line.decode().partition("<")[2].partition(">")[0])
                if verb == b"DATA":
                    self._say("354 go on")
                    peer.mails.append((self._message_id(), tuple(recipients)))
                    recipients = []
                self._say("250 ok")

        def _message_id(self) -> str:
            content = b"".join(iter(self.rfile.readline, b".\r\n"))
            return str(email.message_from_bytes(content, policy=email.policy.default)["Message-ID"])

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing if a client was killed."""

    with Server(("127.0.0.1", 0), Session) as server:
        peer.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield peer
        finally:
            server.shutdown()
            thread.join()
