"""Read the fields of one certificate or request, and check the strength of its key and signature.

A hostile certificate causes an `InputError`, or a None, but no traceback.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from broker.errors import InputError
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.pki import der, moduli
from broker.pki.extensions import extensions_of
from broker.pki.names import ReadName, read_name

_VERSION: Final = 0xA0
SMALLEST_RSA: Final = 2048
_LARGEST_RSA: Final = 8192  # bits; above these two, verifying a signature takes seconds
_LONGEST_SERIAL: Final = 20  # octets
_LARGEST_EXPONENT: Final = 2**32
_USUAL_SIZES: Final = (2048, 3072, 4096, 8192)
EXPONENT: Final = 65537
_BROKEN_DIGESTS: Final = ("md2", "md4", "md5", "sha1")
_OF_EXTENSIONS: Final = (x509.DuplicateExtension, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType)
Signed = x509.Certificate | x509.CertificateSigningRequest
T = TypeVar("T")


class PublicKey(Struct, frozen=True):
    """Facts of a public key. `bits` is 0 if the algorithm has only one size or is unknown."""

    algorithm: str  # "rsa", "ec", "dsa", "ed25519", "ed448", "unknown"
    bits: int = 0
    exponent: int = 0
    flaw: str = ""  # why its modulus can be factored

    @property
    def is_slow(self) -> bool:
        """Whether it is an RSA key of a size that no CA has: it would only keep a verifier busy."""
        return self.algorithm == "rsa" and (self.bits > _LARGEST_RSA or self.exponent > _LARGEST_EXPONENT)

    @property
    def verifies(self) -> bool:
        """Whether signatures by it are verified: not DSA (FIPS 186-5), nor keys that the library refuses to read."""
        return self.algorithm not in ("dsa", "unknown") and not self.is_slow

    def __str__(self) -> str:
        if self.algorithm == "unknown":
            return "unknown or invalid"
        return f"{self.algorithm} {self.bits}" if self.bits else self.algorithm


def load_der(data: bytes) -> x509.Certificate:
    """Return one certificate whose required fields can be read. Raises `InputError`."""
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = x509.load_der_x509_certificate(data)
        _ = (loaded.version, serial_of(loaded), loaded.not_valid_before_utc, loaded.not_valid_after_utc)
        _ = (subject_of(loaded), issuer_of(loaded), spki_of(loaded), extensions_of(loaded))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        hint = "it is damaged or cut off: ask for it again"
        raise InputError("a certificate cannot be read: this is not the structure of one", hint=hint) from error
    return loaded


def subject_of(found: x509.Certificate) -> ReadName:
    """Return the subject as it was sent."""
    return read_name(_names_and_key(found)[1])


def issuer_of(found: x509.Certificate) -> ReadName:
    """Return the issuer as it was sent."""
    return read_name(_names_and_key(found)[0])


def serial_of(found: x509.Certificate) -> int:
    """Return the serial number, also a negative one: a finding reports it."""
    return readable(lambda: found.serial_number, 0)


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


def readable(read: Callable[[], T], fallback: T) -> T:
    """Return the result of `read`, or `fallback` if the library refuses: broken, or of an unknown kind.

    Without the library's warnings about what it will refuse one day, which would end up on the terminal.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return read()
    except (ValueError, TypeError, UnsupportedAlgorithm, *_OF_EXTENSIONS):
        return fallback


def public_key_facts(read: Callable[[], object]) -> PublicKey:
    """Return the facts of the key that `read` returns; "unknown" if the library cannot read it."""
    match key := readable(read, None):
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            return PublicKey("rsa", key.key_size, numbers.e, moduli.flaw(numbers.n))
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
    if key.flaw:
        yield Finding.error("key.factored", f"the key can be factored: {key.flaw}", hint)
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


def digest_faults(name: str, digest: str, hint: str) -> Iterator[Finding]:
    """Yield an error if the signature's digest can be forged. `name` says what is signed: "it"."""
    if digest in _BROKEN_DIGESTS:
        yield Finding.error("signature.weak", f"{name} is signed with {digest.upper()}, which can be forged", hint)


def signature_faults(name: str, found: x509.Certificate, hint: str) -> Iterator[Finding]:
    """Yield the faults of a certificate's signature."""
    yield from digest_faults(name, digest_of(found), hint)
    if isinstance(readable(lambda: found.signature_algorithm_parameters, None), padding.PSS):
        message = f"{name} is signed with RSASSA-PSS, which some programs cannot verify"
        yield Finding.warning("signature.pss", message, "nothing to do now; tell the partner")


def serial_faults(name: str, found: x509.Certificate) -> Iterator[Finding]:
    """Yield a warning for a serial number that other programs refuse (RFC 5280, 4.1.2.2)."""
    if not 0 < serial_of(found) < 1 << 8 * _LONGEST_SERIAL - 1:
        message = f"{name} has a serial number that is not positive, or longer than {_LONGEST_SERIAL} octets"
        yield Finding.warning("serial", message, "nothing to do now; tell the partner, since other programs refuse it")


def _names_and_key(found: x509.Certificate) -> tuple[der.Element, der.Element, der.Element]:
    """Return issuer, subject and SPKI (RFC 5280, 4.1)."""
    fields = (e for e in der.children(der.only(found.tbs_certificate_bytes)) if e.tag != _VERSION)
    _serial, _algorithm, issuer, _validity, subject, spki, *_ = fields
    return issuer, subject, spki
