"""TLS contexts for requests to a partner, made in memory: the key is never written to a disk."""

import fcntl
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from broker.errors import InputError, RefusedError
from broker.model.secret import Secret
from broker.pki import keys

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def client_context(key: Secret[bytes], chain_pem: str, trust_pem: str) -> ssl.SSLContext:
    """Return a new context that presents the certificate in `chain_pem` and trusts only `trust_pem`.

    TLS 1.2 or later, the server's chain and host name verified. A trusted CA may be an intermediate. Never
    changed afterwards; a new generation gets a new context. Raises `RefusedError` for a key that is not the
    certificate's, `InputError` for PEM that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=trust_pem)
    except (ssl.SSLError, ValueError) as error:
        hint = "set them again: broker trust set"
        raise InputError("the CA certificates that verify the server cannot be read", hint=hint) from error
    # The key first: OpenSSL takes the first one in the file.
    try:
        with _sealed(keys.pem(key).reveal() + chain_pem.encode()) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            hint = "take both from the same generation"
            raise RefusedError("the private key is not this certificate's", hint=hint) from None
        message = f"the client certificate cannot be used: {error.reason or 'it cannot be read'}"
        raise InputError(message, hint="look at it with: broker cert inspect") from None
    return context


@contextmanager
def _sealed(content: bytes) -> Iterator[str]:
    """Yield a path to `content`: memory of this process alone, sealed against changes, freed afterwards."""
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
