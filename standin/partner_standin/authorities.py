"""The stand-in's CAs: for client certificates (with successors), for the server, and one that no client trusts.

All keys are P-256, made in 0.01 ms. They are kept in `DIR/ca` and used again after a restart. The server's own
certificates are made at each start.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
AUTHORITY_BACKDATE: Final = timedelta(days=400)  # a certificate back-dated on request must not be older than its CA
SERVER_LIFETIME: Final = timedelta(days=365)
ORGANISATION: Final = "Partner Stand-in"
_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: its certificate and key, and its parent if it is an intermediate."""

    name: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    parent: Authority | None = None

    @property
    def pem(self) -> str:
        """The CA certificate as PEM."""
        return pem(self.certificate)


class Authorities:
    """All CAs of one directory. Thread-safe. The newest issuing CA is also written to `published`."""

    def __init__(self, directory: Path, hosts: Iterable[str], published: Path) -> None:
        self._directory = directory
        self._published = published
        self._hosts = tuple(hosts)
        self._lock = threading.Lock()
        self.server = self._kept("server")
        self.unknown = _authority("unknown", None)
        self._issuing = self._stored("issuing") or (self._kept("issuing-1"),)
        self._intermediates = tuple(
            self._kept(f"intermediate-{name}", parent)
            for name, parent in ((a.name.removeprefix("issuing-"), a) for a in self._issuing)
            if (directory / f"intermediate-{name}.pem").exists()
        )
        self._publish()

    @property
    def issuing(self) -> tuple[Authority, ...]:
        """Every issuing CA that the API trusts, the newest last."""
        return self._issuing

    @property
    def intermediates(self) -> tuple[Authority, ...]:
        """Intermediates of the issuing CAs. The API does not have them: a client must present them."""
        return self._intermediates

    def new_issuing(self) -> Authority:
        """Make another issuing CA; the older ones stay trusted."""
        with self._lock:
            made = self._kept(f"issuing-{len(self._issuing) + 1}")
            self._issuing = (*self._issuing, made)
            self._publish()
            return made

    def intermediate(self) -> Authority:
        """Return the intermediate of the newest issuing CA; the first call makes it."""
        with self._lock:
            parent = self._issuing[-1]
            for known in self._intermediates:
                if known.parent is parent:
                    return known
            made = self._kept(f"intermediate-{parent.name.removeprefix('issuing-')}", parent)
            self._intermediates = (*self._intermediates, made)
            return made

    def server_chain(self, kind: str) -> str:
        """Return certificate and key (PEM) for the API: good, wrong-ca, wrong-host or expired-server."""
        issuer = self.unknown if kind == "wrong-ca" else self.server
        hosts = ("elsewhere.example",) if kind == "wrong-host" else self._hosts
        end = datetime.now(UTC) + (timedelta(days=-1) if kind == "expired-server" else SERVER_LIFETIME)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_common_name(hosts[0]), issuer.certificate.subject, issuer.key, key.public_key())
            .not_valid_before(datetime.now(UTC) - timedelta(days=2))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        return pem(certificate) + _key_pem(key)

    def _publish(self) -> None:
        write_atomically(self._published, self._issuing[-1].pem.encode(), 0o644)

    def _stored(self, prefix: str) -> tuple[Authority, ...]:
        count = len(list(self._directory.glob(f"{prefix}-*.pem")))
        return tuple(self._kept(f"{prefix}-{number}") for number in range(1, count + 1))

    def _kept(self, name: str, parent: Authority | None = None) -> Authority:
        path = self._directory / f"{name}.pem"
        if path.exists():
            text = path.read_bytes()
            key = serialization.load_pem_private_key(text, password=None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return Authority(name, x509.load_pem_x509_certificate(text), key, parent)
        made = _authority(name, parent)
        write_atomically(path, (made.pem + _key_pem(made.key)).encode())
        return made


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 fingerprint of `certificate`, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pem(certificate: x509.Certificate) -> str:
    """Return `certificate` as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `data` beside `path` and rename it, so that a reader sees all of it or none."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.chmod(mode)
    fresh.replace(path)


def _authority(name: str, parent: Authority | None) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{ORGANISATION} {name} {os.urandom(4).hex()}"),
        ]
    )
    issuer_name, issuer_key = (parent.certificate.subject, parent.key) if parent else (subject, key)
    now = datetime.now(UTC)
    certificate = (
        _builder(subject, issuer_name, issuer_key, key.public_key())
        .not_valid_before(now - AUTHORITY_BACKDATE)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    return Authority(name, certificate, key, parent)


def _builder(
    subject: x509.Name, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _common_name(host: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
