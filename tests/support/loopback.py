"""A TLS listener for an embedded vault, with a certificate for 127.0.0.1 and localhost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.pki import key_usage

__all__ = ["server_certificate", "tls_listener"]


def tls_listener(folder: Path, port: int, client_ca: Path) -> str:
    """Return HCL of a listener at `port` that wants a client certificate of `client_ca`.

    Its own certificate is made in `folder`, beside `ca.crt` (for VAULT_CACERT).
    """
    certificate, key = server_certificate(folder)
    values = {
        "address": f"127.0.0.1:{port}",
        "tls_cert_file": str(certificate),
        "tls_key_file": str(key),
        "tls_require_and_verify_client_cert": True,
        "tls_client_ca_file": str(client_ca),
    }
    return 'listener "tcp" {\n' + "".join(f"  {name} = {json.dumps(value)}\n" for name, value in values.items()) + "}"


def server_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key in `folder`, beside the `ca.crt` that verifies it."""
    ca_key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    from_ca = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())  # Python 3.13 wants it
    ca = _unsigned("vault CA", ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(key_usage(cert_sign=True), critical=True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    leaf = _unsigned("localhost", own).add_extension(x509.SubjectAlternativeName(names), critical=False)
    leaf = leaf.add_extension(from_ca, critical=False)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    (folder / "ca.crt").write_bytes(ca.sign(ca_key, SHA256()).public_bytes(Encoding.PEM))
    certificate.write_bytes(leaf.sign(ca_key, SHA256()).public_bytes(Encoding.PEM))
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def _unsigned(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault CA")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=30))
    )
