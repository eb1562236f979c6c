"""Server-side TLS contexts: strict like OpenSSL with `CERT_REQUIRED`, lenient like nginx, or faulty on request.

A context is built for the state at a connection's start and never changed. Equal states share one.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from partner_standin.authorities import Authorities, Authority, write_atomically
from partner_standin.faults import Faults
from partner_standin.registry import Registry

NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not define
SERVER_KINDS: Final = ("wrong-ca", "wrong-host", "expired-server")
LENIENT: Final = ("certificate-nginx", "certificate-json", "certificate-eof")  # these accept the handshake
KEPT: Final = 16
VERSIONS: Final = {
    "1.2": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "1.3": (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
    "both": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The state that a context is built for. `style`: strict, lenient, alert (no issuing CA) or no-cipher."""

    server: str
    version: str
    style: str
    revoked: frozenset[str]
    issuers: int


class Contexts:
    """Cache of contexts by state. Thread-safe."""

    def __init__(self, directory: Path, authorities: Authorities, registry: Registry, faults: Faults) -> None:
        self._directory = directory
        self._authorities = authorities
        self._registry = registry
        self._faults = faults
        self._lock = threading.Lock()
        self._made: dict[_Wanted, ssl.SSLContext] = {}

    def now(self) -> ssl.SSLContext:
        """Return the context for the current faults, CAs and revocations."""
        faults = self._faults
        server = next((kind for kind in SERVER_KINDS if faults.take(kind) is not None), "good")
        issuers = len(self._authorities.issuing) + len(self._authorities.intermediates)
        version = faults.take("tls-version") or "both"
        wanted = _Wanted(server, version, self._style(), self._registry.revoked(), issuers)
        with self._lock:
            if wanted not in self._made:
                if len(self._made) >= KEPT:
                    self._made.clear()
                self._made[wanted] = self._build(wanted)
            return self._made[wanted]

    def _style(self) -> str:
        if self._faults.take("handshake-failure") is not None:
            return "no-cipher"
        if self._faults.take("certificate-alert") is not None:
            return "alert"
        return "lenient" if any(self._faults.value(name) is not None for name in LENIENT) else "strict"

    def _build(self, wanted: _Wanted) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = VERSIONS[wanted.version]
        context.load_cert_chain(self._server_chain(wanted.server))
        trusted = (self._authorities.unknown,) if wanted.style == "alert" else self._authorities.issuing
        context.load_verify_locations(cadata="".join(authority.pem for authority in trusted))
        context.verify_mode = ssl.CERT_REQUIRED
        if wanted.style == "lenient":
            context.verify_mode = ssl.CERT_OPTIONAL
            context.verify_flags |= NO_CHECK_TIME
        elif wanted.style == "no-cipher":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # the server's key is P-256
        elif wanted.revoked:
            self._refuse_revoked(context, wanted.revoked)
        return context

    def _server_chain(self, kind: str) -> Path:
        path = self._directory / f"server-{kind}.pem"
        write_atomically(path, self._authorities.server_chain(kind).encode())
        return path

    def _refuse_revoked(self, context: ssl.SSLContext, revoked: Iterable[str]) -> None:
        """Load a CRL of every CA, as OpenSSL requires, so that a revoked leaf gets the right alert."""
        issuers = (*self._authorities.issuing, *self._authorities.intermediates)
        path = self._directory / "crl.pem"
        write_atomically(path, b"".join(_crl(issuer, revoked) for issuer in issuers))
        context.load_verify_locations(cafile=str(path))
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _crl(issuer: Authority, revoked: Iterable[str]) -> bytes:
    start, end = issuer.certificate.not_valid_before_utc, issuer.certificate.not_valid_after_utc
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(end)
    )
    for serial in sorted(revoked):
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(start).build()
        )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
