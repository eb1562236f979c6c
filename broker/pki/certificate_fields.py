"""Read the fields of one certificate or request, and check the strength of its key and signature.

A hostile certificate causes an `InputError`, or a None, but no traceback.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.errors import InputError
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.pki import der
from broker.pki.names import ReadName, read_name

_VERSION: Final = 0xA0
_NETSCAPE_CERT_TYPE: Final = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
_NETSCAPE_TYPES: Final = ("client", "server", "email", "objsign", "reserved", "sslCA", "emailCA", "objCA")
_BIT_STRING: Final = 0x03
ANY_PURPOSE: Final = "anyExtendedKeyUsage"
SMALLEST_RSA: Final = 2048
_LARGEST_RSA: Final = 8192  # bits; above these two, verifying a signature takes seconds
_LARGEST_EXPONENT: Final = 2**32
_USUAL_SIZES: Final = (2048, 3072, 4096, 8192)
EXPONENT: Final = 65537
_BROKEN_DIGESTS: Final = ("md2", "md4", "md5", "sha1")
Signed = x509.Certificate | x509.CertificateSigningRequest
E_ = TypeVar("E_", bound=x509.ExtensionType)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Facts of a public key. `bits` is 0 if the algorithm has only one size or is unknown."""

    algorithm: str  # "rsa", "ec", "dsa", "ed25519", "ed448", "unknown"
    bits: int = 0
    exponent: int = 0

    @property
    def is_slow(self) -> bool:
        """Whether it is an RSA key of a size that no CA has: it would only keep a verifier busy."""
        return self.algorithm == "rsa" and (self.bits > _LARGEST_RSA or self.exponent > _LARGEST_EXPONENT)

    @property
    def verifies(self) -> bool:
        """Whether signatures by it are verified: not DSA (FIPS 186-5), nor keys that the library refuses to read."""
        return self.algorithm not in ("dsa", "unknown") and not self.is_slow

    def __str__(self) -> str:
        return f"{self.algorithm} {self.bits}" if self.bits else self.algorithm


def load_der(data: bytes) -> x509.Certificate:
    """Return one certificate whose required fields can be read. Raises `InputError`."""
    try:
        with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
            loaded = x509.load_der_x509_certificate(data)
        _ = (loaded.version, serial_of(loaded), loaded.not_valid_before_utc, loaded.not_valid_after_utc)
        _ = (subject_of(loaded), issuer_of(loaded), spki_of(loaded))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        hint = "it is damaged or cut off: ask for it again"
        raise InputError(f"a certificate cannot be read: {error}", hint=hint) from error
    return loaded


def subject_of(found: x509.Certificate) -> ReadName:
    """Return the subject as it was sent."""
    return read_name(_names_and_key(found)[1])


def issuer_of(found: x509.Certificate) -> ReadName:
    """Return the issuer as it was sent."""
    return read_name(_names_and_key(found)[0])


def serial_of(found: x509.Certificate) -> int:
    """Return the serial number, without the library's warning about a negative one: a finding reports it."""
    with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
        return found.serial_number


def spki_of(found: x509.Certificate) -> Spki:
    """Return the SHA-256 of the SubjectPublicKeyInfo as it was sent."""
    return Spki(hashlib.sha256(_names_and_key(found)[2].raw).hexdigest())


def fingerprint_of(found: x509.Certificate) -> str:
    """Return the SHA-256 of the DER certificate in lower-case hex."""
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()


def digest_of(found: Signed) -> str:
    """Return the digest that `found` is signed with ("sha256"), "" if there is none or it is unknown."""
    algorithm = readable(lambda: found.signature_hash_algorithm, None)
    return algorithm.name if algorithm is not None else ""


def extensions_of(found: Signed) -> x509.Extensions | None:
    """Return the extensions, None if they cannot be read: one is broken or occurs twice."""
    return readable(lambda: found.extensions, None)


def readable(read: Callable[[], T], fallback: T) -> T:
    """Return the result of `read`, or `fallback` if the library refuses: broken, or of an unknown kind."""
    try:
        return read()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return fallback


def extension(extensions: x509.Extensions | None, kind: type[E_]) -> E_ | None:
    """Return the value of the extension of this `kind`, or None."""
    return next((e.value for e in extensions or () if isinstance(e.value, kind)), None)


def netscape_types(extensions: x509.Extensions | None) -> tuple[str, ...] | None:
    """Return the uses that nsCertType permits ("client", "sslCA"), None if it is absent. The names are openssl's.

    Obsolete, but OpenSSL still enforces it. `()` if it cannot be read, which OpenSSL refuses too.
    """
    value = next((e.value for e in extensions or () if e.oid == _NETSCAPE_CERT_TYPE), None)
    if not isinstance(value, x509.UnrecognizedExtension):
        return None
    try:
        bits = der.only(value.value)
    except InputError:
        return ()
    octet = bits.content[1] if bits.tag == _BIT_STRING and len(bits.content) > 1 else 0
    return tuple(name for place, name in enumerate(_NETSCAPE_TYPES) if octet & 0x80 >> place)


def is_ca(found: x509.Certificate) -> bool:
    """Return whether BasicConstraints says that it may sign others."""
    constraints = extension(extensions_of(found), x509.BasicConstraints)
    return constraints is not None and constraints.ca


def purposes_without_client(extensions: x509.Extensions) -> tuple[str, ...] | None:
    """Return the extended key usages ("serverAuth"), None if clientAuth is among them, or the extension is absent."""
    purposes = extension(extensions, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH in purposes:
        return None
    return tuple(map(oid_name, purposes))


def oid_name(oid: x509.ObjectIdentifier) -> str:
    """Return the usual name of an extension or a key usage, or the dotted OID."""
    if oid == ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE:
        return ANY_PURPOSE  # the library has no name for it
    name = oid._name  # noqa: SLF001 - the library has no public table of names
    return oid.dotted_string if name == "Unknown OID" else name


def public_key_facts(read: Callable[[], object]) -> PublicKey:
    """Return the facts of the key that `read` returns; "unknown" if the library cannot read it."""
    match key := readable(read, None):
        case rsa.RSAPublicKey():
            return PublicKey("rsa", key.key_size, key.public_numbers().e)
        case ec.EllipticCurvePublicKey() | dsa.DSAPublicKey():
            return PublicKey("dsa" if isinstance(key, dsa.DSAPublicKey) else "ec", key.key_size)
        case ed25519.Ed25519PublicKey():
            return PublicKey("ed25519")
        case ed448.Ed448PublicKey():
            return PublicKey("ed448")
        case _:
            return PublicKey("unknown")


def rsa_faults(key: PublicKey) -> Iterator[Finding]:
    """Yield the faults of `key` as an RSA key."""
    hint = "make a new key: RSA, 2048 bits or what the partner asks, exponent 65537"
    if key.algorithm != "rsa":
        yield Finding.error("key.algorithm", f"the key is {key}, not RSA", hint)
        return
    if key.bits < SMALLEST_RSA:
        yield Finding.error("key.weak", f"the key has {key.bits} bits, fewer than {SMALLEST_RSA}", hint)
    elif key.bits not in _USUAL_SIZES:
        yield Finding.warning("key.odd", f"the key has an unusual size: {key.bits} bits", hint)
    # Python refuses to write a number of more than 4300 digits.
    exponent = key.exponent if key.exponent <= _LARGEST_EXPONENT else f"a number of {key.exponent.bit_length()} bits"
    if key.exponent < 3 or key.exponent % 2 == 0:  # noqa: PLR2004 - RSA allows nothing below
        yield Finding.error("key.exponent", f"the key's exponent is {exponent}: no RSA key has it", hint)
    elif key.exponent != EXPONENT:
        message = f"the key's exponent is {exponent}, and some CAs accept only {EXPONENT}"
        yield Finding.warning("key.exponent", message, hint)


def digest_faults(digest: str, hint: str) -> Iterator[Finding]:
    """Yield an error if the signature's digest can be forged."""
    if digest in _BROKEN_DIGESTS:
        yield Finding.error("signature.weak", f"it is signed with {digest.upper()}, which can be forged", hint)


def _names_and_key(found: x509.Certificate) -> tuple[der.Element, der.Element, der.Element]:
    """Return issuer, subject and SPKI (RFC 5280, 4.1)."""
    fields = (e for e in der.children(der.only(found.tbs_certificate_bytes)) if e.tag != _VERSION)
    _serial, _algorithm, issuer, _validity, subject, spki, *_ = fields
    return issuer, subject, spki
