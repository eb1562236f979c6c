"""Checks before any operation, in the partner's order: certificate, Basic, client_id, CN, quota."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.x509.oid import NameOID

from partner_standin.faults import Faults
from partner_standin.quota import Quota, Usage
from partner_standin.registry import Application, Registry, UnknownLoginError
from partner_standin.responses import Response, certificate_json, certificate_page, error, gateway_error

BAD_BASIC: Final = (
    "Cannot pass the security checks that are required by the target API or operation, "
    "Enable debug headers for more details."
)
BAD_CLIENT: Final = "Invalid client id or secret."
NO_PLAN: Final = "Not registered to plan"
BAD_ADDRESS: Final = "The address of the client is not allowed"  # our words: the partner's are not published


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The fields of a client certificate that the API uses. `serial` is lower-case hex."""

    login: str
    serial: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, der: bytes | None) -> PeerCertificate | None:
        """Return the certificate in `der`, None if none was presented."""
        if not der:
            return None
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return cls(
            str(names[0].value) if names else "",
            f"{certificate.serial_number:x}",
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request. Header names are lower case; `path` has neither query nor fragment."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    certificate: PeerCertificate | None

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """The query, decoded, in order."""
        try:
            return tuple(parse_qsl(self.query, keep_blank_values=True, max_num_fields=100))
        except ValueError:
            return ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed: its login and application, and the quota headers of the answer."""

    login: str
    application: Application
    headers: tuple[tuple[str, str], ...]


class Gate:
    """The checks. The only state is in registry and quota."""

    def __init__(self, registry: Registry, faults: Faults, quota: Quota, clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._faults = faults
        self._quota = quota
        self._clock = clock

    def refuse_certificate(self, certificate: PeerCertificate | None) -> Response | None:
        """Return the refusal of a certificate that is invalid or that a fault rejects; None to accept it."""
        problem = self.problem(certificate)
        page, document = (self._take(name, problem) for name in ("certificate-nginx", "certificate-json"))
        if page:
            return certificate_page(problem or "rejected")
        if document or problem:
            return certificate_json(problem or "rejected")
        return None

    def problem(self, certificate: PeerCertificate | None) -> str:
        """Return what is wrong with a certificate: missing, not yet valid, expired, revoked, or ""."""
        if certificate is None:
            return "missing"
        now = self._clock()
        if now < certificate.not_before:
            return "not yet valid"
        if now > certificate.not_after:
            return "expired"
        return "revoked" if certificate.serial in self._registry.revoked() else ""

    def closes_on(self, certificate: PeerCertificate | None) -> bool:
        """Return whether the connection is closed without an alert right after the handshake."""
        return self._take("certificate-eof", self.problem(certificate))

    def admit(self, request: Request, *, by_header: bool) -> Admitted | Response:
        """Return the admitted request, or the refusal. `by_header`: the API that reads X-IBM-Client-Id and -Secret."""
        if self._faults.take("address-refused") is not None:
            return gateway_error(HTTPStatus.FORBIDDEN, BAD_ADDRESS, "address_refused")
        login = self._login(request)
        if not login or self._faults.take("login-rejected") is not None:
            return gateway_error(HTTPStatus.UNAUTHORIZED, BAD_BASIC, "login_rejected")
        application = self._application(request, login, by_header=by_header)
        if application is None or self._faults.take("client-rejected") is not None:
            return gateway_error(HTTPStatus.UNAUTHORIZED, BAD_CLIENT, "client_rejected")
        if self._faults.take("not-subscribed") is not None:
            return gateway_error(HTTPStatus.UNAUTHORIZED, NO_PLAN, "not_subscribed")
        mismatch = self._mismatch(request, login)
        return mismatch or self._within_quota(login, application)

    def named(self, request: Request) -> str:
        """Return the login of a request if it is known; else "", since it may be a mistyped password."""
        login, _ = _basic(request)
        try:
            return self._registry.account(login).login
        except UnknownLoginError:
            return ""

    def _login(self, request: Request) -> str:
        login, password = _basic(request)
        lockout = self._faults.value("login-lockout")
        limit = None if lockout is None else int(lockout)
        return login if self._registry.admits(login, password, lockout=limit) else ""

    def _application(self, request: Request, login: str, *, by_header: bool) -> Application | None:
        if by_header:
            known = self._registry.application_of(login, request.headers.get("x-ibm-client-id", ""))
            secret = request.headers.get("x-ibm-client-secret", "")
            return known if known and self._registry.secret_fits(known, secret) else None
        given = {value for name, value in request.parameters if name == "client_id"}
        return self._registry.application_of(login, given.pop()) if len(given) == 1 else None

    def _mismatch(self, request: Request, login: str) -> Response | None:
        if request.certificate is None or request.certificate.login == login:
            return None
        how = self._faults.take("cn-mismatch") or "403"
        if how == "off":
            return None
        if how == "401":
            return gateway_error(HTTPStatus.UNAUTHORIZED, BAD_BASIC, "cn_mismatch")
        return error(40399, "The certificate belongs to another login", now=self._stamp(), outcome="cn_mismatch")

    def _within_quota(self, login: str, application: Application) -> Admitted | Response:
        day, burst = (self._faults.take(name) for name in ("quota-day", "quota-burst"))
        standings = self._quota.count(
            application.client_id,
            day=None if day is None else int(day),
            burst=None if burst is None else int(burst),
        )
        headers = _quota_headers(standings)
        wait = max(standing.reset for standing in standings)
        if not wait:
            return Admitted(login, application, headers)
        late = (("X-RateLimit-Reset", str(wait)), ("Retry-After", str(wait)))
        return error(42999, "Too many requests", now=self._stamp(), outcome="quota").plus(*headers, *late)

    def _take(self, fault: str, problem: str) -> bool:
        value = self._faults.value(fault)
        if value is None or (value == "deserved" and not problem):
            return False
        return self._faults.take(fault) is not None

    def _stamp(self) -> datetime | None:
        return None if self._faults.value("no-timestamp") is not None else self._clock()


def _basic(request: Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        login, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return login, password


def _quota_headers(standings: tuple[Usage, Usage]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"X-RateLimit-{what}-{number}", str(value))
        for number, standing in enumerate(standings, 1)
        for what, value in (("Limit", standing.limit), ("Remaining", standing.remaining))
    )
