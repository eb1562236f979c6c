"""The CSR desk: take requests, reject or sign them, and give out replies. At the real partner, people do this.

Nothing runs in the background: requests that are due are signed at the next call, from the desk or the API.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from partner_standin.authorities import Authorities, pem
from partner_standin.csr import Reason, RejectedError, Submitted, examine, read
from partner_standin.faults import Faults
from partner_standin.registry import Issued, Registry, UnknownLoginError
from partner_standin.reply import Reply
from partner_standin.signing import Terms, sign, terms

MOST_REQUESTS: Final = 10_000


class UnknownRequestError(LookupError):
    """The desk has no request with this id."""


@dataclass(frozen=True, slots=True)
class DeskRequest:
    """A CSR on the desk. It waits until `due`, then gets a `reply`."""

    number: str
    submitted: Submitted
    terms: Terms
    received: datetime
    due: datetime
    reply: Reply | None = None

    @property
    def status(self) -> str:
        """Either `waiting` or `signed`; a rejected CSR never becomes a request."""
        return "signed" if self.reply else "waiting"


class Desk:
    """The desk's requests. Thread-safe."""

    def __init__(
        self, authorities: Authorities, registry: Registry, faults: Faults, clock: Callable[[], datetime]
    ) -> None:
        self._authorities = authorities
        self._registry = registry
        self._faults = faults
        self._clock = clock
        self._lock = threading.RLock()
        self._requests: dict[str, DeskRequest] = {}
        self._waiting: set[str] = set()

    def submit(self, data: bytes, options: Mapping[str, str] | None = None) -> DeskRequest:
        """Take a CSR (PEM, DER, or a mail with one); `options` as `signing.terms` reads them.

        Raise `RejectedError` with every reason, or `ValueError` for an unknown option.
        """
        submitted = read(data)
        examine(submitted, self._knows)
        if self._faults.take("desk-reject") is not None:
            raise RejectedError(Reason("rejected-by-hand", "the desk does not accept this request"))
        how = terms(options or {}, self._faults)
        now = self._clock()
        request = DeskRequest(str(uuid.uuid4()), submitted, how, now, now + how.delay)
        with self._lock:
            if len(self._requests) >= MOST_REQUESTS:
                raise ValueError("the desk is full: restart it")
            self._requests[request.number] = request
            self._waiting.add(request.number)
        self.settle()
        return self.request(request.number)

    def request(self, number: str) -> DeskRequest:
        """Return a request in its current state; raise `UnknownRequestError`."""
        self.settle()
        try:
            return self._requests[number]
        except KeyError:
            raise UnknownRequestError("the desk has no request with this id") from None

    def requests(self) -> tuple[DeskRequest, ...]:
        """Return all requests, in the order they came in."""
        self.settle()
        with self._lock:
            return tuple(self._requests.values())

    def settle(self) -> None:
        """Sign all requests that are due."""
        if not self._waiting:
            return
        with self._lock:
            now = self._clock()
            for number in [number for number in self._waiting if self._requests[number].due <= now]:
                self._requests[number] = self._signed(self._requests[number], now)
                self._waiting.discard(number)

    def _signed(self, request: DeskRequest, now: datetime) -> DeskRequest:
        how, login = request.terms, request.submitted.login
        certificate, issuer = sign(request.submitted.csr, self._authorities, how, now)
        ends = None if how.revoke_old is None else now + how.revoke_old
        self._registry.record(
            Issued(f"{certificate.serial_number:x}", login, issuer.name, certificate.not_valid_after_utc),
            revoke_older_from=ends,
        )
        reply = Reply(
            login=login,
            client_id=self._registry.client_id(login, how.application),
            certificate=pem(certificate),
            issuing_ca=(issuer.parent or issuer).pem,
            server_ca=self._authorities.server.pem,
            signed_at=now,
            intermediate=issuer.pem if issuer.parent else "",
        )
        return replace(request, reply=reply)

    def _knows(self, login: str) -> bool:
        try:
            self._registry.account(login)
        except UnknownLoginError:
            return False
        return True
