"""Rules for the strength of keys and signatures: the same for a request, a certificate and a CA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from broker.model.finding import Finding
from broker.pki.certificate_fields import readable

__all__ = ["EXPONENT", "SMALLEST_RSA", "PublicKey", "digest_faults", "public_key_facts", "rsa_faults"]

SMALLEST_RSA: Final = 2048
_LARGEST_RSA: Final = 8192  # bits; above these two, verifying a signature takes seconds
_LARGEST_EXPONENT: Final = 2**32
_USUAL_SIZES: Final = (2048, 3072, 4096, 8192)
EXPONENT: Final = 65537
_BROKEN_DIGESTS: Final = ("md2", "md4", "md5", "sha1")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Facts of a public key. `bits` is 0 if the algorithm has only one size or is unknown."""

    algorithm: str  # "rsa", "ec", "dsa", "ed25519", "ed448", "unknown"
    bits: int = 0
    exponent: int = 0

    @property
    def is_slow(self) -> bool:
        """Return whether it is an RSA key of a size that no CA has: it would only keep a verifier busy."""
        return self.algorithm == "rsa" and (self.bits > _LARGEST_RSA or self.exponent > _LARGEST_EXPONENT)

    @property
    def verifies(self) -> bool:
        """Return whether its signatures are verified: not DSA (FIPS 186-5), nor keys that the library refuses."""
        return self.algorithm not in ("dsa", "unknown") and not self.is_slow

    def __str__(self) -> str:
        return f"{self.algorithm} {self.bits}" if self.bits else self.algorithm


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


def rsa_faults(prefix: str, key: PublicKey) -> Iterator[Finding]:
    """Yield the faults of `key` as an RSA key; codes start with `prefix`."""
    prefix, hint = f"{prefix}.key", "make a new key: RSA, 2048 bits or what the partner asks, exponent 65537"
    if key.algorithm != "rsa":
        yield Finding.error(f"{prefix}.algorithm", f"the key is {key}, not RSA", hint)
        return
    if key.bits < SMALLEST_RSA:
        yield Finding.error(f"{prefix}.weak", f"the key has {key.bits} bits, fewer than {SMALLEST_RSA}", hint)
    elif key.bits not in _USUAL_SIZES:
        yield Finding.warning(f"{prefix}.odd", f"the key has an unusual size: {key.bits} bits", hint)
    # Python refuses to write a number of more than 4300 digits.
    exponent = key.exponent if key.exponent <= _LARGEST_EXPONENT else f"a number of {key.exponent.bit_length()} bits"
    if key.exponent < 3 or key.exponent % 2 == 0:  # noqa: PLR2004 - RSA allows nothing below
        yield Finding.error(f"{prefix}.exponent", f"the key's exponent is {exponent}: no RSA key has it", hint)
    elif key.exponent != EXPONENT:
        message = f"the key's exponent is {exponent}, and some CAs accept only {EXPONENT}"
        yield Finding.warning(f"{prefix}.exponent", message, hint)


def digest_faults(prefix: str, digest: str, hint: str) -> Iterator[Finding]:
    """Yield an error if the signature's digest can be forged."""
    if digest in _BROKEN_DIGESTS:
        message = f"it is signed with {digest.upper()}, which can be forged"
        yield Finding.error(f"{prefix}.signature.weak", message, hint)
