"""The Fleet Owner API: mTLS in a thread for each connection, then gate, then operations."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Final

from partner_standin.desk import Desk
from partner_standin.durations import parse_duration
from partner_standin.faults import Faults
from partner_standin.gate import Admitted, Gate, PeerCertificate, Request
from partner_standin.listener import Handler, Listener, drain, reset
from partner_standin.operations import Call, NotAcceptableError, NotFoundError, Operations, WrongBodyError
from partner_standin.outages import outage, with_mishap
from partner_standin.paging import BadPageError
from partner_standin.request_log import RequestLog
from partner_standin.responses import Response, error
from partner_standin.tls_contexts import Contexts

BASES: Final = (
    "/connectedcar/v3",
    "/connectedcar/v2",
    "/api/cert-aai",
)  # the last one reads client id and secret from headers
PATIENCE: Final = 10.0  # seconds for a handshake


class Api:
    """Answer requests, without knowledge of sockets."""

    def __init__(
        self,
        gate: Gate,
        operations: Operations,
        faults: Faults,
        journal: RequestLog,
        desk: Desk,
        clock: Callable[[], datetime],
    ) -> None:
        self.gate = gate
        self.faults = faults
        self.journal = journal
        self.desk = desk
        self._operations = operations
        self._clock = clock

    def answer(self, request: Request, *, origin: str, tls: str) -> Response:
        """Return the answer to `request` and log it. Links in the answer start with `origin`."""
        self.desk.settle()
        early = self.gate.refuse_certificate(request.certificate) or outage(self.faults, self._clock)
        admitted: Admitted | Response = early or self.gate.admit(request, by_header=request.path.startswith(BASES[2]))
        answer = self._run(request, admitted, origin) if isinstance(admitted, Admitted) else admitted
        self._note(request, admitted, answer, tls)
        return with_mishap(answer, self.faults)

    def _run(self, request: Request, admitted: Admitted, origin: str) -> Response:
        prefix = next((base for base in BASES if request.path.startswith(f"{base}/")), "")
        parameters = {name: value for name, value in request.parameters if name != "client_id"}
        call = Call(
            login=admitted.login,
            method=request.method,
            path=request.path.removeprefix(prefix),
            prefix=prefix,
            origin=origin,
            parameters=parameters,
            body=request.body,
            accept=request.headers.get("accept", ""),
            echo=admitted.application.client_id if self.faults.value("echo-client-id") is not None else "",
        )
        return self._operate(call).plus(*admitted.headers)

    def _operate(self, call: Call) -> Response:
        stamp = None if self.faults.value("no-timestamp") is not None else self._clock()
        try:
            if not call.prefix:
                raise NotFoundError  # noqa: TRY301 - one place makes the 404
            answer = self._operations.answer(call)
        except NotFoundError:
            return error(40499, "Resource not found", now=stamp)
        except NotAcceptableError:
            return error(40699, "Not acceptable", now=stamp)
        except BadPageError as problem:
            return error(40099, str(problem), now=stamp)
        except WrongBodyError:
            return error(40098, "The body is not a JSON object", now=stamp)
        return answer or error(40599, "Method not allowed", now=stamp)

    def _note(self, request: Request, admitted: Admitted | Response, answer: Response, tls: str) -> None:
        known = (admitted.login, admitted.application.name) if isinstance(admitted, Admitted) else None
        login, application = known or (self.gate.named(request), "")
        self.journal.note(
            answer.outcome,
            status=answer.status,
            login=login,
            application=application,
            serial=request.certificate.serial if request.certificate else "",
            tls=tls,
            method=request.method[:16],
            path=request.path[:400],
        )


class _ApiHandler(Handler):
    """HTTP over one TLS connection."""

    server: ApiListener
    connection: ssl.SSLSocket

    def setup(self) -> None:
        """Read the client certificate, once for each connection."""
        super().setup()
        self._certificate = PeerCertificate.of(self.connection.getpeercert(binary_form=True))

    def reply(self) -> Response:
        """Hand the request to the API."""
        path, _, query = self.path.partition("#")[0].partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers, self.body(), self._certificate)
        return self.server.api.answer(request, origin=self.server.origin, tls=self.connection.version() or "")


class ApiListener(Listener):
    """Listen, do the handshake with the faults that are on, and hand over to a handler."""

    handler: ClassVar[type[Handler]] = _ApiHandler

    def __init__(self, address: tuple[str, int], api: Api, contexts: Contexts) -> None:
        super().__init__(address, self.handler)
        self.api = api
        self._contexts = contexts

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"https://{host}:{self.server_port}"

    def admit(self, request: Any) -> socket.socket | None:
        """Return the TLS connection, or None if there is none; the log then has the reason."""
        if self._turned_away(request):
            return None
        self.api.desk.settle()
        request.settimeout(PATIENCE)
        connection = self._contexts.now().wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        try:
            connection.do_handshake()
            certificate = PeerCertificate.of(connection.getpeercert(binary_form=True))
        except (OSError, ValueError) as failure:
            self.api.journal.note(f"handshake: {_reason(failure)}")
            drain(connection)  # a reset would overtake the alert
            connection.close()
            return None
        if self.api.gate.closes_on(certificate):
            self.api.journal.note("certificate-eof", serial=certificate.serial if certificate else "")
            drain(connection)
            connection.close()
            return None
        return connection

    def _turned_away(self, request: socket.socket) -> bool:
        faults = self.api.faults
        stall = faults.take("handshake-stall")
        if stall is not None:
            time.sleep(max(0.0, parse_duration(stall).total_seconds()))
        for fault, act in _BEFORE_TLS.items():
            if faults.take(fault) is not None:
                act(request)
                self.api.journal.note(fault)
                return True
        return False


def _speak_plainly(connection: socket.socket) -> None:
    connection.settimeout(PATIENCE)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    drain(connection)


_BEFORE_TLS: Final[dict[str, Callable[[socket.socket], None]]] = {
    "closed-at-once": drain,
    "reset-at-once": reset,
    "handshake-garbage": _speak_plainly,
}


def _reason(failure: Exception) -> str:
    reason = getattr(failure, "verify_message", "") or getattr(failure, "reason", "") or type(failure).__name__
    return str(reason).lower().replace("_", " ")
