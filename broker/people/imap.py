"""A session with an IMAP server: verified TLS, a login by SASL, one deadline for all of it."""

import imaplib
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import socket
from typing import Any, Final

from broker.network import FAULTS, Deadline, Reader
from broker.people.login import Login, Sasl
from broker.people.server import LIMIT, MailServer, MailTlsError, Tls, unreachable

_LARGEST: Final = 64 * 1024 * 1024  # bytes that a server may say in one session


class ImapSession(imaplib.IMAP4):
    """imaplib on a connection of ours. Every read and write ends at the deadline."""

    def __init__(self, server: MailServer, deadline: Deadline) -> None:
        self._server, self._deadline = server, deadline
        self._channel: socket
        self._reader: io.BufferedReader
        super().__init__(server.host, server.port)

    # The methods that imaplib calls for its transport

    def open(self, host: str = "", port: int = 0, timeout: float | None = None) -> None:  # noqa: ARG002
        """Connect to the server."""
        self._use(self._server.opened(self._deadline))

    def read(self, size: int) -> bytes:
        """Read `size` bytes."""
        return self._reader.read(size)

    def readline(self) -> bytes:
        """Read a line."""
        return self._reader.readline()

    def send(self, data: Any) -> None:
        """Send all of `data`."""
        left = memoryview(data)
        while left:
            self._channel.settimeout(self._deadline.left)
            left = left[self._channel.send(left) :]

    def shutdown(self) -> None:
        """Close the connection."""
        self._reader.close()
        self._channel.close()

    def _use(self, channel: socket) -> None:
        self._channel = channel
        self._reader = Reader(channel, self._deadline, _LARGEST).makefile("rb")

    # Steps

    def secure(self) -> None:
        """Let TLS begin; raise `MailTlsError` if the server offers none, or is logged in already."""
        if self.state != "NONAUTH" or "STARTTLS" not in self.capabilities or self.xatom("STARTTLS")[0] != "OK":
            message = f"{self._server} offers no TLS; nothing was sent"
            raise MailTlsError(message, hint=f'set tls = "tls" under [mail.{self._server.name}], and ask its operator')
        self._use(self._server.secured(self._channel, self._deadline))  # without what came before TLS
        _, answer = self.capability()
        self.capabilities = tuple(str(answer[-1], "ascii", "replace").upper().split())

    def log_in(self, login: Login) -> None:
        """Log in; raise `WrongLoginError`."""
        offered = [name.removeprefix("AUTH=") for name in self.capabilities]
        sasl = login.sasl(self._server.host, self._server.port, offered)
        try:
            self.authenticate(sasl.mechanism, _answers(sasl))
        except imaplib.IMAP4.error as error:
            if isinstance(error, imaplib.IMAP4.abort) or "[UNAVAILABLE]" in str(error):  # RFC 5530: not the login
                raise
            raise login.rejected(self._server, self._server.name) from None


@contextmanager
def imap_session(server: MailServer, login: Login | None, limit: float = LIMIT) -> Iterator[ImapSession]:
    """Yield a session that is logged in. What goes wrong in it is raised as our errors."""
    with explaining(server):
        session = login.with_new_token(lambda: _opened(server, login, limit)) if login else _opened(server, None, limit)
        try:
            yield session
        finally:
            with suppress(*FAULTS, imaplib.IMAP4.error):
                session.logout()
            session.shutdown()  # which a failed logout leaves out


@contextmanager
def explaining(server: MailServer) -> Iterator[None]:
    """Raise what imaplib raises as our errors. A server's text is not in them."""
    try:
        with server.explaining():
            yield
    except imaplib.IMAP4.error as error:
        raise unreachable(server, error) from None


def _opened(server: MailServer, login: Login | None, limit: float) -> ImapSession:
    session = ImapSession(server, Deadline(limit))
    try:
        if server.tls is Tls.STARTTLS:
            session.secure()
        if login:
            session.log_in(login)
    except BaseException:
        session.shutdown()
        raise
    return session


def _answers(sasl: Sasl) -> Any:
    lines = iter(sasl.lines)

    def answer(_: bytes) -> bytes | None:
        line = next(lines, None)
        return line.reveal() if line else None  # None: end the exchange

    return answer
