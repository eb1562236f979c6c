"""TLS of our own, as client and as server. Keys stay in memory: none is written to a disk."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker import memfd
from broker.errors import InputError, RefusedError
from broker.model.secret import Secret

_REASONS: Final = {  # in the words of OpenSSL, under this system's security level
    "EE_KEY_TOO_SMALL": "its key is too small",
    "CA_KEY_TOO_SMALL": "the key of a CA beside it is too small",
    "CA_MD_TOO_WEAK": "it, or a CA beside it, has a signature that can be forged",
    "INVALID_CERTIFICATE": "an extension is broken",
}


def client_context(key_and_chain: Secret[bytes], trust_pem: str) -> ssl.SSLContext:
    """Return a new context that presents a certificate and trusts only `trust_pem`.

    `key_and_chain` is PEM: the key, the certificate, its intermediates. TLS 1.2 or later, the server's chain and name
    verified. A trusted CA may be an intermediate. Never changed afterwards; a new generation gets a new context. Raises
    `RefusedError` for a key that is not the certificate's, `InputError` for PEM that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=trust_pem)
    except (ssl.SSLError, ValueError) as error:
        hint = "set the CAs of the partner's server again"
        raise InputError("the CA certificates that verify the server cannot be read", hint=hint) from error
    try:
        with sealed(key_and_chain.reveal()) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            hint = "take both from the same generation"
            raise RefusedError("the private key is not this certificate's", hint=hint) from None
        message = f"the client certificate cannot be used: {_REASONS.get(error.reason or '', 'it cannot be read')}"
        raise InputError(message, hint="broker cert inspect FILE shows a certificate") from None
    return context


@contextmanager
def sealed(content: bytes) -> Iterator[str]:
    """Yield a path to `content`: memory of this process alone, sealed against changes, freed afterwards."""
    descriptor = memfd.sealed(content)
    try:
        yield memfd.path_of(descriptor)
    finally:
        os.close(descriptor)


def server_request(name: str) -> tuple[Secret[bytes], str]:
    """Return a new key for a server called `name`, a host name or an IP address, and a CSR for it. Both are PEM."""
    key, address = ec.generate_private_key(ec.SECP256R1()), _address(name)
    subject = x509.Name([] if address else [x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.IPAddress(address) if address else x509.DNSName(name)])
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(names, critical=not subject)
    csr = builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())), csr


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
