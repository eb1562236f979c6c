"""TLS of a listener, with a certificate that is replaced while the service runs.

A context that serves is never changed: a mismatched pair would leave it without a certificate. A new one is built, and
new connections get it.
"""

import asyncio
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.errors import BrokerError, InputError
from broker.model.secret import Secret
from broker.pki.certificates import load
from broker.pki.tls import sealed
from broker.telemetry import log

_CHECK: Final = 2.0  # seconds between two looks at whether the certificate is due
_AGAIN: Final = 30.0  # seconds after which a failed renewal is tried again
_LIFE: Final = 2 / 3  # of the time that is left, after which a certificate is renewed


class Tls(ABC):
    """TLS whose certificate is followed. `not_before` and `not_after` are those of the certificate, in Unix time."""

    def __init__(self) -> None:
        self.not_before = self.not_after = 0.0
        self._current = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context to listen with: it hands each connection to the newest one."""
        listening = self._load()
        listening.sni_callback = self._choose
        return listening

    async def follow(self) -> None:
        """Replace the certificate when that is due, until cancelled. A failure is logged and changes nothing."""
        failed: object = None
        while True:
            await asyncio.sleep(_CHECK)
            if not self._is_due():
                continue
            attempt = self._attempt()
            try:
                self._current = await asyncio.to_thread(self._renewed)
                log.info("certificate of the service replaced", not_after=self.not_after)
            except Exception as error:  # noqa: BLE001  # such as too many open files: the next look tries again
                reason = error.message if isinstance(error, BrokerError) else type(error).__name__
                if attempt != failed:
                    log.error("certificate of the service not replaced", reason=reason, not_after=self.not_after)
                failed = attempt

    @abstractmethod
    def _is_due(self) -> bool: ...

    @abstractmethod
    def _load(self) -> ssl.SSLContext: ...

    def _attempt(self) -> object:
        """Return what distinguishes this try: a failure is logged once for each."""
        return object()

    def _renewed(self) -> ssl.SSLContext:
        return self._load()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _context_of(self, certificate: Path, key: Path) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            made.load_cert_chain(certificate, key, password=_no_passphrase)
            leaf = load(certificate.read_bytes())[0]
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "not a matching pair"
            raise InputError(
                f"cannot use {certificate} and {key} for TLS: {reason}", hint="PEM files: the chain, and its key"
            ) from None
        self.not_before, self.not_after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        return made


class ReloadedTls(Tls):
    """TLS with a certificate from files, which are read again when they change."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen = self._stamp()
        super().__init__()

    def _is_due(self) -> bool:
        return self._seen != self._stamp()

    def _attempt(self) -> object:
        return self._stamp()

    def _renewed(self) -> ssl.SSLContext:
        seen = self._stamp()
        context = self._load()
        self._seen = seen
        return context

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        found: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_ctime_ns, status.st_ino))  # chmod sets the second
            except OSError:
                found.append(None)
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        return self._context_of(*self._files)


class IssuedTls(Tls):
    """TLS with a certificate that `issue` gets, as PEM with its key. It is renewed at two thirds of its life.

    The key stays in memory. If `issue` fails, the certificate is used until its end.
    """

    def __init__(self, issue: Callable[[], Secret[bytes]]) -> None:
        self._issue = issue
        self._pem = issue()
        super().__init__()
        self._due = self._time_to_renew()

    def _is_due(self) -> bool:
        return time.time() >= self._due

    def _renewed(self) -> ssl.SSLContext:
        self._due = time.time() + _AGAIN  # if this fails
        self._pem = self._issue()
        context = self._load()
        self._due = self._time_to_renew()
        return context

    def _time_to_renew(self) -> float:
        now = time.time()
        return now + (self.not_after - now) * _LIFE

    def _load(self) -> ssl.SSLContext:
        with sealed(self._pem.reveal()) as path:
            return self._context_of(Path(path), Path(path))


def _no_passphrase() -> str:
    raise InputError("the key of the service is encrypted", hint="give an unencrypted key, mode 0600")
