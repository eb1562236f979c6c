"""Key stores and trust stores for programs that do not read PEM. Encoding takes milliseconds."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat, pkcs12

from broker.errors import InputError, RefusedError
from broker.model.certificate import CaSet, Certificate
from broker.model.secret import Secret
from broker.pki import keys
from broker.pki.certificate_fields import spki_of
from broker.pki.certificates import load

__all__ = ["ALIAS", "pkcs12_bundle", "truststore_p12"]

ALIAS: Final = "credential"
_ROUNDS: Final = 20_000


def pkcs12_bundle(key: Secret[bytes], certificate: Certificate, passphrase: Secret[str]) -> Secret[bytes]:
    """Return a PKCS#12 file: the key, its certificate and chain.

    PBES2 with AES-256 and 20,000 rounds (6 ms), which Java 17, curl and Node read. Raises `InputError` for an empty
    passphrase, `RefusedError` if the key is not the certificate's.
    """
    leaf, *chain = load(certificate.pem)
    if spki_of(leaf) != keys.spki_of(key):
        raise RefusedError("the private key is not this certificate's", hint="take both from the same generation")
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(SHA256())
    encryption = builder.build(_octets(passphrase))
    return Secret(
        pkcs12.serialize_key_and_certificates(ALIAS.encode(), keys.load(key), leaf, chain or None, encryption)
    )


def truststore_p12(trust: CaSet, passphrase: Secret[str]) -> bytes:
    """Return a PKCS#12 trust store that Java accepts: each entry has Oracle's trust attribute.

    Java does not accept one made by `openssl pkcs12 -nokeys`. Raises `InputError` for an empty passphrase.
    """
    entries = [pkcs12.PKCS12Certificate(c, f"ca-{n}".encode()) for n, c in enumerate(load(trust.pem), start=1)]
    # Java derives the file's MAC from the passphrase; what is inside is public.
    return pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(_octets(passphrase)))


def _octets(passphrase: Secret[str]) -> bytes:
    if not passphrase.reveal():
        raise InputError("the passphrase is empty", hint="give one: programs refuse stores without a passphrase")
    return passphrase.reveal().encode()
