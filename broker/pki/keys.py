"""Private keys: make, check once, then load fast. A key is always unencrypted PKCS#8 DER in a `Secret`."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from broker.errors import InputError
from broker.model.certificate import Spki
from broker.model.secret import Secret
from broker.model.subject import KeyRules

__all__ = ["SIGNING_DIGESTS", "check", "generate", "load", "pem", "spki_of"]

EXPONENT: Final = 65537
SIGNING_DIGESTS: Final = {digest.name: digest for digest in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())}
_SMALLEST: Final = 2048
_LARGEST: Final = 8192  # beyond it a key takes minutes to make, and no partner asks for one


def generate(rules: KeyRules) -> Secret[bytes]:
    """Make a key that fits `rules`: RSA with exponent 65537, about 60 ms for 2048 bits and a second for 4096.

    Raises `InputError` for another algorithm or size.
    """
    if rules.algorithm != "rsa":
        raise InputError(f"the broker makes no '{rules.algorithm}' keys", hint="use rsa in the profile")
    if not _SMALLEST <= rules.bits <= _LARGEST:
        hint = f"use {_SMALLEST} to {_LARGEST} bits in the profile"
        raise InputError(f"the broker makes no keys of {rules.bits} bits", hint=hint)
    key = rsa.generate_private_key(public_exponent=EXPONENT, key_size=rules.bits)
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def load(key: Secret[bytes]) -> rsa.RSAPrivateKey:
    """Load without the consistency check, which takes 44 ms: for keys that the broker made or `check` has passed.

    Raises `InputError` if it is not an RSA key in PKCS#8 DER.
    """
    return _load(key, unchecked=True)


def check(key: Secret[bytes]) -> None:
    """Check, once at import, that the key's numbers belong together and that it signs.

    Raises `InputError` if not. No error names a part of the key.
    """
    _load(key, unchecked=False)


def spki_of(key: Secret[bytes]) -> Spki:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo."""
    public = load(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Spki(hashlib.sha256(public).hexdigest())


def pem(key: Secret[bytes]) -> Secret[bytes]:
    """Return the key as unencrypted PKCS#8 PEM."""
    return Secret(load(key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _load(key: Secret[bytes], *, unchecked: bool) -> rsa.RSAPrivateKey:
    try:
        loaded = load_der_private_key(key.reveal(), None, unsafe_skip_rsa_key_validation=unchecked)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause: an exception of the library may quote its input.
        hint = "export it again: openssl pkcs8 -topk8 -nocrypt -outform DER"
        message = "the private key cannot be used: it is damaged, encrypted, or not PKCS#8"
        raise InputError(message, hint=hint) from None
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise InputError("the private key is not RSA", hint="partners accept only RSA")
    return loaded
