"""A certificate for the embedded vault's TCP listener on 127.0.0.1, from a CA that signs once and is forgotten."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.embedded.config import Loopback
from broker.embedded.home import Home, write_private

__all__ = ["certified_loopback"]

_LIFETIME: Final = timedelta(days=825)
_RENEW_BEFORE: Final = timedelta(days=30)


def certified_loopback(directory: Path, *, port: int = 0, client_ca: Path | None = None) -> Loopback:
    """Return a listener for `start`'s options: `port`, or a free one, and a certificate for 127.0.0.1 and localhost.

    The files lie in DIRECTORY/tls: `ca.crt` (for VAULT_CACERT), `tls.crt`, `tls.key`; made anew when they are about to
    expire. Raises what `Home.claim` does.
    """
    home = Home(directory.absolute())
    home.claim()
    home.tls.mkdir(mode=0o700, exist_ok=True)
    certificate, key = home.tls / "tls.crt", home.tls / "tls.key"
    if not _lasts(certificate):
        _certify(home.tls, certificate, key)
    return Loopback(port or _free_port(), certificate, key, client_ca)


def _lasts(certificate: Path) -> bool:
    try:
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (FileNotFoundError, ValueError):
        return False
    return ends - datetime.now(UTC) > _RENEW_BEFORE


def _certify(folder: Path, certificate: Path, key: Path) -> None:
    ca_key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "credential-broker embedded vault CA")])
    ca = _unsigned(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    names = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    leaf = (
        _unsigned(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), ca_name, own)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    write_private(folder / "ca.crt", ca.sign(ca_key, SHA256()).public_bytes(Encoding.PEM))
    write_private(key, own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(
        certificate, leaf.sign(ca_key, SHA256()).public_bytes(Encoding.PEM)
    )  # last: it says that all is there


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
