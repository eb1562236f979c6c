"""Send mails by SMTP: verified TLS, one deadline for the whole session, and refusals by their kind."""

import smtplib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, Final

from msgspec import Struct

from broker.addresses import on_wire
from broker.errors import BrokerError, InputError, MailUnavailableError, RefusedError
from broker.model.redactor import Redactor
from broker.model.secret import Secret
from broker.network import FAULTS, Deadline, Reader
from broker.people.login import Login, Sasl
from broker.people.server import LIMIT, MailServer, MailTlsError, Tls, unreachable

_LARGEST: Final = 256 * 1024  # bytes that a server may say in one session
_SHOWN: Final = 200  # characters of a server's text
_OK, _PASSING, _PERMANENT = 2, 4, 5  # first digits
_CONTINUE: Final = 334
_EXCEEDED: Final = 552
_TOO_LARGE: Final = ("5.3.4", "5.2.3")  # RFC 3463


class MailRefusedError(RefusedError):
    """The server refuses this mail for good: its sender, its recipients, its size or its content."""


class Mailer(Struct, frozen=True):
    """Sends mails from `sender` through one server. Without `login` it does not log in."""

    server: MailServer
    sender: str
    login: Login | None = None
    limit: float = LIMIT  # seconds

    def send(self, message: EmailMessage) -> tuple[str, ...]:
        """Send `message` to its To and Cc; return the addresses that the server refused.

        Raise `MailRefusedError` if it refuses all, `WrongLoginError`, `MailTlsError`, `InputError` for an address, or
        `MailUnavailableError`: then it may have been sent, and is sent again with the same Message-ID.
        """
        fields = [field for name in ("To", "Cc") for field in message.get_all(name, [])]
        recipients = [address.addr_spec for field in fields for address in field.addresses]
        utf8 = not all(map(str.isascii, (self.sender, *recipients)))
        return self.deliver(message.as_bytes(policy=SMTP.clone(utf8=utf8)), recipients)

    def deliver(self, content: bytes, recipients: Sequence[str]) -> tuple[str, ...]:
        """Send a mail that is written already, as `send` does."""
        if not recipients:
            raise InputError("the mail has no recipient")
        sender, given = on_wire(self.sender), {on_wire(to): to for to in recipients}
        with self._session() as session:
            return tuple(given[to] for to in session.deliver(sender, tuple(given), content))

    def check(self) -> None:
        """Connect and log in; send nothing."""
        with self._session():
            pass

    @contextmanager
    def _session(self) -> "Iterator[_Session]":
        session = self.login.with_new_token(self._opened) if self.login else self._opened()
        with closing(session):
            yield session
            with suppress(*FAULTS, smtplib.SMTPException):  # the mail is accepted: an error here changes nothing
                session.quit()

    def _opened(self) -> "_Session":
        session = _Session(self.server, on_wire(self.sender).rpartition("@")[2], Deadline(self.limit))
        try:
            session.begin()
            if self.login:
                session.log_in(self.login)
        except BaseException:
            session.close()
            raise
        return session


class _Session(smtplib.SMTP):
    """A session on a connection of ours. Every read and write ends at the deadline."""

    def __init__(self, server: MailServer, name: str, deadline: Deadline) -> None:
        super().__init__(local_hostname=name)  # opens no connection, and asks no name server
        self._server, self._deadline = server, deadline
        self._secrets: tuple[Secret[str], ...] = ()

    # transport

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = Reader(self.sock, self._deadline, _LARGEST).makefile("rb")
        return super().getreply()

    def send(self, s: Any) -> None:
        if self.sock is None:
            raise ConnectionResetError
        left = memoryview(s.encode(self.command_encoding) if isinstance(s, str) else s)
        while left:
            self.sock.settimeout(self._deadline.left)
            left = left[self.sock.send(left) :]

    @contextmanager
    def _explaining(self, sent: str = "") -> Iterator[None]:
        try:
            with self._server.explaining():
                yield
        except smtplib.SMTPException as error:
            raise self._fault(error) from None
        except MailUnavailableError as error:
            raise MailUnavailableError(error.message + sent, hint=error.hint) from None

    def _fault(self, error: smtplib.SMTPException) -> BrokerError:
        try:
            _ = self._deadline.left
        except TimeoutError as late:
            return unreachable(self._server, late)
        return unreachable(self._server, error)

    # steps

    def begin(self) -> None:
        """Connect, and let TLS begin before anything is said; raise `MailTlsError` if the server offers none."""
        with self._explaining():
            self.sock = self._server.opened(self._deadline)
            self._require(self.getreply(), "the connection")
            self._require(self.ehlo(), "EHLO")
            if self._server.tls is not Tls.STARTTLS:
                return
            if not self.has_extn("starttls") or self.docmd("STARTTLS")[0] // 100 != _OK:
                message = f"{self._server} offers no TLS; nothing was sent"
                hint = f'somebody may tamper with the connection; or set tls = "tls" under [mail.{self._server.name}]'
                raise MailTlsError(message, hint=hint)
            self.sock = self._server.secured(self.sock, self._deadline)
            self.file = None  # with what came before TLS
            self.esmtp_features = {}
            self._require(self.ehlo(), "EHLO")

    def log_in(self, login: Login) -> None:
        """Log in; raise `WrongLoginError`."""
        offered = self.esmtp_features.get("auth", "").upper().split()
        sasl = login.sasl(self._server.host, self._server.port, offered)
        self._secrets = sasl.secrets
        if sasl.mechanism not in offered:
            raise InputError(
                f"{self._server} offers no login by {sasl.mechanism}, but: {_printable(', '.join(offered)) or 'none'}",
                hint=f"set auth under [mail.{self._server.name}] in broker.toml",
            )
        with self._explaining():
            code, text = self._exchanged(sasl)
        if code // 100 == _PERMANENT:
            raise login.rejected(self._server, self._server.name, self._said(code, text))
        self._require((code, text), "the login")

    def _exchanged(self, sasl: Sasl) -> tuple[int, bytes]:
        lines = [b64encode(line.reveal()).decode() for line in sasl.lines]
        code, text = self.docmd("AUTH", f"{sasl.mechanism} {lines.pop(0)}" if sasl.initial else sasl.mechanism)
        while code == _CONTINUE:
            code, text = self.docmd(lines.pop(0) if lines else "*")
        return code, text

    def deliver(self, sender: str, recipients: Sequence[str], content: bytes) -> tuple[str, ...]:
        """Send one mail; return the recipients that are refused."""
        with self._explaining():
            options = [*self._utf8(sender, *recipients), *([f"SIZE={len(content)}"] if self.has_extn("size") else [])]
            self._require(self.mail(sender, options), f"the sender {sender}", len(content))
            refused = [(to, reply) for to in recipients if self._refuses(reply := self.rcpt(to), to)]
            if len(refused) == len(recipients):
                raise self._refusal(refused[0][1], f"the recipient {', '.join(to for to, _ in refused)}", len(content))
        with self._explaining("; it may have been sent"):
            self._require(self._data(content), "the mail", len(content))
        return tuple(to for to, _ in refused)

    def _utf8(self, *addresses: str) -> tuple[str, ...]:
        """Return the options that `addresses` need; raise `MailRefusedError` if the server does not offer them."""
        others = [address for address in addresses if not address.isascii()]
        if others and not self.has_extn("smtputf8"):
            message = f"{self._server} offers no SMTPUTF8, so no mail with {', '.join(others)} was sent"
            raise MailRefusedError(message, hint="use an address with an ASCII name before the @, or another server")
        return ("SMTPUTF8", "BODY=8BITMIME") if others else ()

    def _data(self, content: bytes) -> tuple[int, bytes]:
        try:
            return self.data(content)
        except smtplib.SMTPDataError as error:  # in answer to DATA
            return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""

    def _refuses(self, reply: tuple[int, bytes], to: str) -> bool:
        if reply[0] // 100 != _PERMANENT:
            self._require(reply, f"the recipient {to}")
        return reply[0] // 100 == _PERMANENT

    # answers

    def _require(self, reply: tuple[int, bytes], what: str, size: int = 0) -> None:
        if reply[0] // 100 != _OK:
            raise self._refusal(reply, what, size)

    def _refusal(self, reply: tuple[int, bytes], what: str, size: int = 0) -> BrokerError:
        code, text = reply
        if code // 100 not in (_PASSING, _PERMANENT):
            return unreachable(self._server, ValueError())
        said = self._said(code, text)
        if code // 100 != _PERMANENT:
            message = f"{self._server} does not take {what} now: {said}"
            return MailUnavailableError(message, hint="it is sent again later, with the same Message-ID")
        if size and (code == _EXCEEDED or text[:5].decode("ascii", "replace") in _TOO_LARGE):
            return MailRefusedError(f"{self._server} refuses a mail of {size} bytes as too large: {said}")
        return MailRefusedError(f"{self._server} refuses {what}: {said}")

    def _said(self, code: int, text: bytes) -> str:
        shown = Redactor(self._secrets).redact(text.decode("utf-8", "replace"))
        return f"{code} {_printable(shown)}".strip()


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SHOWN]
