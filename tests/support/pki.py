"""A small vocabulary of certificates, good and hostile, for tests of any room.

`a_ca()` and `a_leaf(ca, key)` make good ones; every keyword argument is a way to make a bad one. Keys are shared:
making an RSA key takes 60 ms, so tests name them (`a_key("other")`) and get the same one each time.
"""

from __future__ import annotations

import functools
import math
import random
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject, SubjectRules
from broker.pki.der import children, only

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)  # the tests' present
GUIDE = SubjectRules(
    required=frozenset({"C", "ST", "L", "O", "OU", "CN", "emailAddress"}),
    fixed={"OU": "Programs Partners"},
    common_name_is_login=True,
    login_prefix="MZP",
)
LOGIN = "MZP0012345"
GOOD = Subject(
    (
        ("C", "FR"),
        ("ST", "Île-de-France"),
        ("L", "Paris"),
        ("O", "Société Exemple"),
        ("OU", "Programs Partners"),
        ("CN", LOGIN),
        ("emailAddress", "fleet@company.example"),
    )
)
RULES = KeyRules()
AnyKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | dsa.DSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
ExtensionOf = tuple[x509.ExtensionType, bool]
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "DC": NameOID.DOMAIN_COMPONENT,
    "serialNumber": NameOID.SERIAL_NUMBER,
}


@dataclass(frozen=True, slots=True)
class Ca:
    """A CA: certificate and key."""

    certificate: x509.Certificate
    key: AnyKey

    @property
    def pem(self) -> str:
        return pem(self.certificate)


@functools.cache
def a_key(name: str = "leaf", bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """An RSA key; the same one for the same arguments."""
    return rsa.generate_private_key(public_exponent=exponent, key_size=bits)


@functools.cache
def an_ec_key(name: str = "leaf") -> ec.EllipticCurvePrivateKey:
    """A P-256 key; the same one for the same name."""
    return ec.generate_private_key(ec.SECP256R1())


def secret_of(key: AnyKey) -> Secret[bytes]:
    """The key as the broker keeps it: PKCS#8 DER."""
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def a_name(subject: Subject | str, string_type: str = "") -> x509.Name:
    """A name from a subject or from a CN. `string_type` ("PrintableString", "BMPString"...) is forced on all values."""
    attributes = (("CN", subject),) if isinstance(subject, str) else subject.attributes
    forced = _ASN1Type[string_type] if string_type else None
    with warnings.catch_warnings(action="ignore"):
        return x509.Name([x509.NameAttribute(_OIDS[n], v, forced, _validate=False) for n, v in attributes])


def a_ca(
    name: str = "Partner Issuing CA",
    *,
    key: AnyKey | None = None,
    issuer: Ca | None = None,
    basic: x509.BasicConstraints | None = x509.BasicConstraints(ca=True, path_length=None),  # noqa: B008 - a value
    cert_sign: bool | None = True,
    not_before: datetime = NOW - timedelta(days=1000),
    not_after: datetime = NOW + timedelta(days=2000),
    digest: hashes.SHA256 | None = None,
    extra: Sequence[ExtensionOf] = (),
) -> Ca:
    """A CA, a root unless `issuer` is given. `basic=None` leaves BasicConstraints out, `cert_sign=None` KeyUsage."""
    own = key or a_key(f"ca {name}")
    extensions: list[ExtensionOf] = [(basic, True)] if basic is not None else []
    if cert_sign is not None:
        extensions.append((key_usage(cert_sign=cert_sign), True))
    extensions += extra
    subject = a_name(name)
    signer, issuer_name = (issuer.key, issuer.certificate.subject) if issuer else (own, subject)
    made = _signed(subject, issuer_name, own, signer, extensions, not_before, not_after, digest or hashes.SHA256())
    return Ca(made, own)


def a_leaf(
    ca: Ca,
    key: AnyKey | None = None,
    subject: Subject | str | x509.Name = GOOD,
    *,
    not_before: datetime = NOW - timedelta(days=1),
    not_after: datetime = NOW + timedelta(days=364),
    eku: Sequence[x509.ObjectIdentifier] | None = CLIENT,
    digital_signature: bool | None = True,
    is_ca: bool = False,
    basic: bool = True,
    extra: Sequence[ExtensionOf] = (),
    issuer_name: x509.Name | None = None,
    salt: int | None = None,
) -> x509.Certificate:
    """A client certificate from `ca`. `eku=None`, `digital_signature=None`, `basic=False` leave the extension out.

    With `salt` it is signed with PSS, and a salt of this length.
    """
    extensions: list[ExtensionOf] = [(x509.BasicConstraints(ca=is_ca, path_length=None), True)] if basic else []
    if eku is not None:
        extensions.append((x509.ExtendedKeyUsage(eku), False))
    if digital_signature is not None:
        extensions.append((key_usage(digital_signature=digital_signature), True))
    issuer = issuer_name or ca.certificate.subject
    own = key or a_key()
    name = subject if isinstance(subject, x509.Name) else a_name(subject)
    return _signed(name, issuer, own, ca.key, [*extensions, *extra], not_before, not_after, hashes.SHA256(), salt)


def key_usage(*, digital_signature: bool = False, cert_sign: bool = False) -> x509.KeyUsage:
    """Key usage with nothing but what is asked for (and keyEncipherment, so that it is never empty)."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=not cert_sign,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def netscape_type(bits: int) -> ExtensionOf:
    """nsCertType with these bits: 0x80 client, 0x40 server, 0x20 email, 0x04 sslCA, 0x01 objCA."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.1"), bytes([3, 2, 0, bits])), False


def resigned(found: x509.Certificate, signer: rsa.RSAPrivateKey, digest: hashes.SHA1 | hashes.MD5) -> x509.Certificate:
    """Sign a certificate again with a digest that the library verifies, and refuses to sign with."""
    sha256, other = (
        bytes.fromhex("2a864886f70d0101") + bytes([last]) for last in (11, {"sha1": 5, "md5": 4}[digest.name])
    )
    body = found.tbs_certificate_bytes.replace(sha256, other)
    signature = signer.sign(body, padding.PKCS1v15(), digest)
    return x509.load_der_x509_certificate(
        der(found).replace(found.tbs_certificate_bytes, body).replace(sha256, other).replace(found.signature, signature)
    )


def altered(
    found: x509.Certificate, signer: rsa.RSAPrivateKey, change: Callable[[list[bytes]], list[bytes]]
) -> x509.Certificate:
    """Change the fields of the TBSCertificate, in DER, and sign it again: what no library makes."""
    with warnings.catch_warnings(action="ignore"):
        return x509.load_der_x509_certificate(altered_der(der(found), signer, change))


def altered_der(found: bytes, signer: rsa.RSAPrivateKey, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Change the fields of a certificate, or of a request, and sign it again."""
    content, algorithm, _ = children(only(found))
    body = tlv(0x30, *change([e.raw for e in children(content)]))
    signature = signer.sign(body, padding.PKCS1v15(), hashes.SHA256())
    return tlv(0x30, body, algorithm.raw, tlv(3, b"\0" + signature))


def tlv(tag: int, *parts: bytes) -> bytes:
    """DER of one element."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


@functools.cache
def a_flawed_key(flaw: str) -> rsa.RSAPrivateKey:
    """An RSA key of 2048 bits that can be factored: "roca", "close" or "small"."""
    p, q = 2**1024 - 105, {"close": 2**1024 - 179, "small": 251}.get(flaw, 0)
    if flaw == "roca":
        step, guess = math.prod(n for n in range(2, 168) if all(n % d for d in range(2, n))), random.Random(flaw)
        p, q = (_prime(lambda: guess.getrandbits(806) * step + pow(65537, guess.randrange(step), step)) for _ in "pq")
    return _rsa_key(p, q)


def _rsa_key(p: int, q: int) -> rsa.RSAPrivateKey:
    d = pow(65537, -1, math.lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _prime(candidate: Callable[[], int]) -> int:
    return next(n for n in iter(candidate, 0) if n % 2 and pow(2, n - 1, n) == 1)


def with_exponent(found: x509.Certificate, exponent: int) -> x509.Certificate:
    """The certificate with another RSA exponent of up to three octets, in DER or nearly so; its signature breaks."""
    return x509.load_der_x509_certificate(der(found).replace(b"\2\3\1\0\1", b"\2\3" + exponent.to_bytes(3, "big")))


@functools.cache
def a_tiny_key() -> rsa.RSAPrivateKey:
    """An RSA key of 511 bits, which the library does not make."""
    return _rsa_key(2**256 - 189, 2**255 - 19)


def pem(*certificates: x509.Certificate) -> str:
    """PEM of some certificates, in order."""
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def der(certificate: x509.Certificate) -> bytes:
    """DER of one certificate."""
    return certificate.public_bytes(Encoding.DER)


def key_file(folder: Path, key: AnyKey | None = None) -> Path:
    """Write a key for openssl."""
    path = folder / "key.pem"
    path.write_bytes((key or a_key()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def run(*command: str | Path, stdin: bytes = b"") -> bytes:
    """Run a program to its end and return its output; the test fails with its words if it does."""
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    return done.stdout


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: AnyKey,
    signer: AnyKey,
    extensions: Sequence[ExtensionOf],
    not_before: datetime,
    not_after: datetime,
    digest: hashes.SHA256,
    salt: int | None = None,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), not_before, not_after
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    pss = padding.PSS(padding.MGF1(digest), salt) if salt is not None else None
    without_digest = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(signer, None if without_digest else digest, rsa_padding=pss)
