"""Certificates as text and facts. Only `pki` builds these, from bytes it has parsed."""

from datetime import datetime
from typing import NewType

from msgspec import Struct

Spki = NewType("Spki", str)  # SHA-256 of the DER SubjectPublicKeyInfo, lower-case hex
CertificateRef = NewType("CertificateRef", str)  # SHA-256 of the DER leaf, lower-case hex
CaSetRef = NewType("CaSetRef", str)  # SHA-256 over the sorted fingerprints in the set, lower-case hex


class Certificate(Struct, frozen=True):
    """A leaf with its intermediates. `pem` is empty once no living generation refers to it."""

    ref: CertificateRef
    spki: Spki
    subject: str
    issuer: str
    serial: str  # lower-case hex
    not_before: datetime
    not_after: datetime
    pem: str  # leaf first, then intermediates in order; no root


class CaSet(Struct, frozen=True):
    """A set of CA certificates: those that verify the partner's server, or those that a leaf must chain to."""

    ref: CaSetRef
    fingerprints: tuple[str, ...]  # SHA-256 of each DER certificate, lower-case hex, sorted
    not_after: datetime  # the earliest
    pem: str
