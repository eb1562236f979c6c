"""A whole, working set for the partner stand-in, as a bundle; and one that works nowhere, for files alone."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.delivery import directory
from broker.delivery.formats import FileFormat
from broker.delivery.root import held
from broker.model.authentication import PASSWORD as PASSWORD_NAME
from broker.model.bundle import Bundle
from broker.model.clock import Clock, system_clock
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.pki import certificates, csr, keys
from broker.pki.tls import client_context
from broker.upstream.credentials import Credentials

if TYPE_CHECKING:
    from partner_standin import Standin

LOGIN = "MZP0000042"
PASSWORD = 'plänted-pass\\word "quoted" \'n all: -é'
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LEASE = "lease-0001"


@cache
def key(number: int = 1) -> Secret[bytes]:
    return keys.generate(KeyRules())


def subject(login: str = LOGIN) -> Subject:
    return Subject(
        (
            ("C", "FR"),
            ("ST", "Paris"),
            ("L", "Paris"),
            ("O", "Exemple"),
            ("OU", "Programs Partners"),
            ("CN", login),
            ("emailAddress", "fleet@example.com"),
        )
    )


def bundle_of(partner: Standin, *, number: int = 1, generation: int = 7, login: str = LOGIN) -> Bundle:
    """Have the desk sign a key, and return all that a consumer needs. The stand-in must know `login`."""
    reply = partner.sign(csr.build(key(number), subject(login), KeyRules()))
    return bundle(
        certificate=reply.certificate,
        trust=reply.server_ca,
        base_url=partner.api_url,
        client_id=reply.client_id,
        number=number,
        generation=generation,
        login=login,
    )


def self_signed(secret: Secret[bytes], name: str = LOGIN) -> str:
    """Return a certificate that no CA has signed, for files and for servers that must refuse it."""
    private, subject_ = keys.load(secret), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject_, subject_, private.public_key(), 4711)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def paper(**changes: Any) -> Bundle:
    """Return a bundle that looks whole and works nowhere: enough for files."""
    number = changes.get("number", 1)
    made = self_signed(key(number))
    return bundle(certificate=made, trust=_authority(), **changes)


@cache
def _authority() -> str:
    private, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), 1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def bundle(
    *,
    certificate: str,
    trust: str,
    base_url: str = "https://api.example.com/v3",
    client_id: str = "0b9f2a0c-planted-client",
    number: int = 1,
    generation: int = 7,
    login: str = LOGIN,
    password: str = PASSWORD,
) -> Bundle:
    return Bundle(
        account=AccountName("mzp-1"),
        application="reports",
        generation=generation,
        base_url=base_url,
        client_id=client_id,
        login=login,
        secrets={PASSWORD_NAME: Secret(password)},
        key=keys.pem(key(number)),
        certificate=certificate,
        not_after=certificates.certificate(certificate).not_after,
        trust=trust,
        lease_id=LEASE,
        expires=NOW + timedelta(hours=1),
    )


def publish(
    root: Path,
    bundle: Bundle,
    formats: Collection[FileFormat] = (),
    *,
    grace: timedelta = directory.GRACE,
    clock: Clock = system_clock,
) -> Path:
    """Publish `bundle` below `root`, and return the directory of its generation."""
    with patch.object(directory, "GRACE", grace), directory.publishing(root, bundle, formats, clock) as holding:
        return holding.path


def withdraw(root: Path, lease: str) -> tuple[Path, ...]:
    """Withdraw what lies at `root`, as a holder does by the descriptors it has kept."""
    with held(root) as opened:
        return directory.withdraw(opened, lease)


def credentials_of(bundle: Bundle) -> Credentials:
    """Return `bundle` ready for calls."""
    context = client_context(Secret(bundle.key.reveal() + bundle.certificate.encode()), bundle.trust)
    return Credentials(bundle.base_url, context, bundle.login, bundle.secrets, bundle.client_id, bundle.authentication)
