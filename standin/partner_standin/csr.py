"""Read a CSR from PEM, DER or mail, and check it as the partner's people would."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

UNIT: Final = "Programs Partners"
LEAST_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for a rejection: a stable code and a message."""

    code: str
    message: str


class RejectedError(Exception):
    """The desk does not sign this CSR; `reasons` lists everything that is wrong with it."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__("; ".join(reason.message for reason in reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Submitted:
    """A CSR, with Message-ID and sender if it came by mail."""

    csr: x509.CertificateSigningRequest
    message_id: str = ""
    sender: str = ""

    @property
    def login(self) -> str:
        """The login: the CN of the subject."""
        return _first(self.csr.subject, NameOID.COMMON_NAME)

    @property
    def pem(self) -> str:
        """The CSR as PEM."""
        return self.csr.public_bytes(serialization.Encoding.PEM).decode()


def read(data: bytes) -> Submitted:
    """Return the CSR in `data`: PEM, DER, or a mail (RFC 5322) that carries one. Raise `RejectedError`."""
    if data.lstrip()[:10] == b"-----BEGIN" or data[:1] == b"\x30":
        return Submitted(_load(data))
    message = email.message_from_bytes(data, policy=email.policy.default)
    for part in _payloads(message):
        if b"CERTIFICATE REQUEST-----" in part or part[:1] == b"\x30":
            return Submitted(_load(part), _header(message, "Message-ID"), _header(message, "From"))
    raise RejectedError(Reason("no-csr", "no CSR found: send PEM, DER or a mail with one attached"))


def examine(submitted: Submitted, known_login: Callable[[str], bool]) -> None:
    """Raise `RejectedError` with every reason, in the order in which a person would find them."""
    reasons = list(_reasons(submitted, known_login))
    if reasons:
        raise RejectedError(*reasons)


def _reasons(submitted: Submitted, known_login: Callable[[str], bool]) -> Iterator[Reason]:
    csr = submitted.csr
    try:
        signed = csr.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        signed = False
    if not signed:
        yield Reason("bad-signature", "the request is not signed by its own key")
    key = csr.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        yield Reason("not-rsa", "the key is not RSA")
    elif key.key_size < LEAST_BITS:
        yield Reason("weak-key", f"the key has {key.key_size} bits; at least {LEAST_BITS} are needed")
    units = [attribute.value for attribute in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    if units != [UNIT]:
        yield Reason("wrong-ou", f"OU must be exactly {UNIT!r}")
    if not known_login(submitted.login):
        yield Reason("unknown-login", "CN is not a known login")
    if "@" not in _first(csr.subject, NameOID.EMAIL_ADDRESS):
        yield Reason("missing-email", "the subject has no e-mail address: it is needed to download and to renew")


def _load(data: bytes) -> x509.CertificateSigningRequest:
    try:
        csr = (x509.load_der_x509_csr if data[:1] == b"\x30" else x509.load_pem_x509_csr)(data)
        csr.public_key()
        list(csr.subject)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RejectedError(Reason("unreadable", "the CSR cannot be read")) from error
    return csr


def _payloads(message: EmailMessage) -> Iterator[bytes]:
    for part in message.walk():
        payload = None if part.is_multipart() else part.get_payload(decode=True)
        if isinstance(payload, bytes):
            yield payload


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())[:400]
    except (ValueError, IndexError, AttributeError):  # the standard library's parser fails on some malformed headers
        return ""


def _first(subject: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return next((str(attribute.value) for attribute in subject.get_attributes_for_oid(oid)), "")
