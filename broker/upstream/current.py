"""The set that a session uses: held whole, and replaced without failing a request in flight."""

import os
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from typing import Final, Generic, Protocol, TypeVar

from broker.errors import BrokerError, RefusedError
from broker.network import alert_of, behind, is_closed
from broker.upstream.credentials import Credentials

ASK_EVERY: Final = 1.0  # seconds for which "there is no newer generation" is believed; twice as long each time
_DOUBLED: Final = 6  # times at most: a minute
# Statuses that may mean a rejected login or certificate. 495 and 496 are nginx's, which sends them as 400; others do so
# with the code in the body
_REJECTED: Final = frozenset({400, 401, 495, 496})
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110, section 9.2.2
_ALERTS: Final = {  # of RFC 8446, by which a server refuses the certificate before it reads a request
    "access denied",
    "bad certificate",
    "certificate expired",
    "certificate required",
    "certificate revoked",
    "certificate unknown",
    "decrypt error",
    "handshake failure",
    "unknown ca",
    "unsupported certificate",
}


class Rejection(Enum):
    """The way in which a partner may have rejected a set."""

    NONE = "none"
    STATUS = "status"
    CLOSED = "closed"  # without an answer: some servers refuse a certificate so
    CERTIFICATE = "certificate"  # no request was read


class Wire(Protocol):
    """Connections to the partner with one set."""

    def close(self) -> None:
        """Close the idle connections. It may be used again."""


W = TypeVar("W", bound=Wire)
A = TypeVar("A")


class Use(Generic[W]):
    """One set, its connections, and the number of requests that use it now."""

    __slots__ = ("count", "credentials", "ends", "wire")

    def __init__(self, credentials: Credentials, wire: W) -> None:
        self.credentials = credentials
        self.wire = wire
        self.count = 0
        self.ends = False  # close the connections when nothing uses them

    def rest(self) -> None:
        """Close the connections, those in use when they are not any more."""
        self.ends = self.count > 0
        if not self.ends:
            self.wire.close()


class Current(Generic[W]):
    """The set in use. Threads may share it. `make` makes its connections."""

    def __init__(self, credentials: Credentials, make: Callable[[Credentials], W]) -> None:
        self._make = make
        self._lock = threading.RLock()  # a collected response may give its use back at any time
        self._asking = threading.Lock()
        self._asked = -ASK_EVERY
        self._in_vain = 0  # questions in a row
        self._ended: BrokerError | None = None
        self._process = os.getpid()
        self._use = Use(credentials, make(credentials))
        self.ask: Callable[[], object] = lambda: None  # swaps if there is a newer generation

    @property
    def credentials(self) -> Credentials:
        """The set in use."""
        return self._use.credentials

    def exchanged(
        self,
        attempt: Callable[[W], tuple[A, Rejection]],
        method: str,
        body: bytes | None,
        close: Callable[[A], object],
    ) -> A:
        """Return what `attempt` makes of a request; if the partner rejected the set, once more with a newer one.

        `close` gets an answer that is not used.
        """
        found, use, rejection = self._tried(attempt)
        if rejection is Rejection.NONE:
            self.forget_rejections()
        elif self.has_newer(use) and may_repeat(rejection, method, body):
            close(found)
            found = self._tried(attempt)[0]
        return found

    def _tried(self, attempt: Callable[[W], tuple[A, Rejection]]) -> tuple[A, Use[W], Rejection]:
        use = self.lend()
        try:
            found, rejection = attempt(use.wire)
        finally:
            self.back(use)
        return found, use, rejection

    def lend(self) -> Use[W]:
        """Return the set for one exchange, which ends with `back`. Raise the error that ended the session's set.

        Raise `RefusedError` after a fork: both processes would write to the same connections, and one follows nothing.
        """
        if os.getpid() != self._process:
            raise RefusedError("the session was made before a fork", hint="make one in each process, after the fork")
        with self._lock:
            if self._ended:
                raise type(self._ended)(self._ended.message, hint=self._ended.hint)
            self._use.count += 1
            return self._use

    def back(self, use: Use[W]) -> None:
        """End an exchange. The last one closes connections that must not be used again."""
        with self._lock:
            use.count -= 1
            if not use.count and (use.ends or use.credentials.has_expired(datetime.now(UTC))):
                use.rest()

    def swap(self, credentials: Credentials) -> Use[W]:
        """Use `credentials` from the next exchange on, and return the set before. Exchanges in flight keep theirs.

        Raise `RefusedError` for a set of another base URL: that is another account.
        """
        if credentials.base_url != self.credentials.base_url:
            raise RefusedError("a session keeps its base URL", hint="open another session for another account")
        fresh = Use(credentials, self._make(credentials))
        with self._lock:
            before, self._use, self._ended = self._use, fresh, None
            before.rest()
        return before

    def end(self, error: BrokerError) -> None:
        """Close the connections, and raise `error` for every further exchange, until a `swap`."""
        with self._lock:
            self._ended = error
            self._use.rest()

    def rest(self) -> None:
        """Close the connections; further exchanges open others."""
        with self._lock:
            self._use.rest()

    def forget_rejections(self) -> None:
        """Take note of an exchange without a rejection: the next one asks again within a second."""
        self._in_vain = 0

    def has_newer(self, use: Use[W]) -> bool:
        """Return whether there is a newer set than that of `use`, which the partner rejected; ask once.

        Threads that ask meanwhile wait for the same answer.
        """
        with self._asking:
            if self._use is use and time.monotonic() - self._asked >= ASK_EVERY * 2**self._in_vain:
                with suppress(BrokerError):
                    self.ask()
                self._asked = time.monotonic()
                self._in_vain = min(self._in_vain + 1, _DOUBLED) if self._use is use else 0
            return self._use is not use and not self._ended


def rejection_of(found: int | Exception) -> Rejection:
    """Return what a status, or the error of an exchange without an answer, says about the set."""
    if isinstance(found, int):
        return Rejection.STATUS if found in _REJECTED else Rejection.NONE
    inner = [error for error in behind(found) if isinstance(error, OSError)]
    if any(isinstance(error, ssl.SSLCertVerificationError) or alert_of(error) in _ALERTS for error in inner):
        return Rejection.CERTIFICATE
    return Rejection.CLOSED if any(map(is_closed, inner)) else Rejection.NONE


def may_repeat(rejection: Rejection, method: str, body: bytes | None) -> bool:
    """Return whether a request may be sent again with a newer set. A stream (`body` is None) cannot."""
    return body is not None and (rejection is Rejection.CERTIFICATE or method in _IDEMPOTENT)
