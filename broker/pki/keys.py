"""Private keys: make, load, and write as key stores. A key is always unencrypted PKCS#8 DER in a `Secret`."""

import hashlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from broker.errors import InputError, RefusedError
from broker.model.certificate import Spki
from broker.model.secret import Secret
from broker.model.subject import KeyRules
from broker.pki import certificate_fields as fields
from broker.pki import certificates

_ROUNDS: Final = 20_000


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


def from_pem(pem: Secret[bytes]) -> Secret[bytes]:
    """Return the key in unencrypted PEM; raise `InputError`."""
    try:
        loaded = load_pem_private_key(pem.reveal(), None, unsafe_skip_rsa_key_validation=True)
        return Secret(loaded.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError("the private key is not unencrypted PEM", hint="get the bundle again") from None


def pkcs12_bundle(key: Secret[bytes], chain_pem: str, passphrase: Secret[str]) -> Secret[bytes]:
    """Return a PKCS#12 file: the key, its certificate, which `chain_pem` begins with, and its intermediates.

    PBES2 with AES-256 and 20,000 rounds (6 ms), which Java 17, curl and Node read. Raises `InputError` for an empty
    passphrase, `RefusedError` if the key is not the certificate's.
    """
    leaf, *chain = certificates.load(chain_pem)
    if fields.spki_of(leaf) != spki_of(key):
        raise RefusedError("the private key is not this certificate's", hint="take both from the same generation")
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(SHA256())
    encryption = builder.build(_octets(passphrase))
    return Secret(pkcs12.serialize_key_and_certificates(b"credential", load(key), leaf, chain or None, encryption))


def truststore_p12(trust_pem: str, passphrase: Secret[str]) -> bytes:
    """Return a PKCS#12 trust store that Java accepts: each entry has Oracle's trust attribute.

    Java does not accept one made by `openssl pkcs12 -nokeys`. Raises `InputError` for an empty passphrase.
    """
    trusted = enumerate(certificates.load(trust_pem), start=1)
    entries = [pkcs12.PKCS12Certificate(ca, f"ca-{number}".encode()) for number, ca in trusted]
    # Java derives the file's MAC from the passphrase; what is inside is public.
    return pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(_octets(passphrase)))


def _octets(passphrase: Secret[str]) -> bytes:
    if not passphrase.reveal():
        raise InputError("the passphrase is empty", hint="give one: programs refuse stores without a passphrase")
    return passphrase.reveal().encode()
