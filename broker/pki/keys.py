"""Private keys: make and load. A key is always unencrypted PKCS#8 DER in a `Secret`."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
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

__all__ = ["generate", "load", "pem", "spki_of"]


def generate(rules: KeyRules) -> Secret[bytes]:
    """Make a key that fits `rules`: RSA with exponent 65537, about 60 ms for 2048 bits and a second for 4096."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=rules.bits)
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def load(key: Secret[bytes]) -> rsa.RSAPrivateKey:
    """Load a key that the broker made, without the library's consistency check, which takes 44 ms.

    Raises `InputError` if it is not an RSA key in PKCS#8 DER. No error names a part of the key.
    """
    try:
        loaded = load_der_private_key(key.reveal(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause: an exception of the library may quote its input.
        hint = "export it again: openssl pkcs8 -topk8 -nocrypt -outform DER"
        message = "the private key cannot be used: it is damaged, encrypted, or not PKCS#8"
        raise InputError(message, hint=hint) from None
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise InputError("the private key is not RSA", hint="partners accept only RSA")
    return loaded


def spki_of(key: Secret[bytes]) -> Spki:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo."""
    public = load(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Spki(hashlib.sha256(public).hexdigest())


def pem(key: Secret[bytes]) -> Secret[bytes]:
    """Return the key as unencrypted PKCS#8 PEM."""
    return Secret(load(key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
