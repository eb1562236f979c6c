"""A mail server: its address, its TLS, and what goes wrong on the way to it. For SMTP and IMAP."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from socket import socket
from typing import Final

from msgspec import Struct

from broker.errors import BrokerError, InputError, MailUnavailableError, RefusedError
from broker.network import FAULTS, Deadline, alert_of, connected, is_loopback

LIMIT: Final = 60.0  # seconds for a whole session


class Tls(Enum):
    """When TLS begins. Values are those of the setting `tls`."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class MailTlsError(RefusedError):
    """The server cannot be verified, or offers no TLS. Nothing secret was sent."""


class MailServer(Struct, frozen=True):
    """A server as `[mail.NAME]` describes it; raise `InputError` for one that would be reached in the clear."""

    name: str  # smtp or imap
    host: str
    port: int
    tls: Tls
    ca_file: str = ""

    def __post_init__(self) -> None:
        if self.tls is Tls.NONE and not is_loopback(self.host):
            message = f"{self} would get login and mails unencrypted; refusing to use it"
            raise InputError(message, hint=f'tls = "starttls" or "tls" under [mail.{self.name}] in broker.toml')

    def __str__(self) -> str:
        return f"the {self.name.upper()} server {self.host}:{self.port}"

    @property
    def context(self) -> ssl.SSLContext:
        """A new context that verifies the server's chain and host name."""
        return verifying(self.ca_file, f"mail.{self.name}.ca_file")

    def opened(self, deadline: Deadline) -> socket:
        """Return a connection, with TLS if it begins with the first byte; raise `OSError`."""
        channel = connected(self.host, self.port, deadline)
        return self.secured(channel, deadline) if self.tls is Tls.TLS else channel

    def secured(self, channel: socket, deadline: Deadline) -> ssl.SSLSocket:
        """Return the connection with TLS, after the handshake; raise `OSError`."""
        try:
            channel.settimeout(deadline.left)
            return self.context.wrap_socket(channel, server_hostname=self.host)
        except (OSError, BrokerError):
            channel.close()
            raise

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise faults of the connection as our errors."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise MailTlsError(
                f"{self} cannot be verified: {error.verify_message}; nothing was sent",
                hint=f"check host and ca_file of [mail.{self.name}] in broker.toml",
            ) from None
        except FAULTS as error:
            raise unreachable(self, error) from None


def verifying(ca_file: str, setting: str) -> ssl.SSLContext:
    """Return a context that trusts the CAs in `ca_file`, else those of this machine; raise `InputError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if not ca_file:
        context.load_default_certs()
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a CA that is named may be an intermediate
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise InputError(f"{setting}: cannot read {ca_file}: {reason}", hint="broker config check") from None
    return context


def unreachable(what: object, error: Exception) -> MailUnavailableError:
    """Return the error for a connection that failed. Only words of ours and of the system are in it."""
    if isinstance(error, TimeoutError):
        reason = "did not answer in time"
    elif isinstance(error, ssl.SSLError):
        reason = f"ended the TLS handshake: {alert_of(error) or error.reason or 'no reason given'}"
    elif isinstance(error, OSError) and error.strerror:
        reason = f"cannot be reached: {error.strerror}"
    else:
        reason = "closed the connection, or gave no usable answer"
    return MailUnavailableError(f"{what} {reason}", hint="broker mail test tries it again")
