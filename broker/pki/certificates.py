"""Certificates as values for the model and for people, and their fingerprints."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from broker.errors import InputError
from broker.model.certificate import CaSet, CaSetRef, Certificate, CertificateRef, Spki
from broker.model.fingerprint import format_fingerprint
from broker.pki import certificate_fields as fields
from broker.pki import chain, der
from broker.pki.extensions import extensions_of
from broker.pki.pem import blocks_in

_MAX_SIZE: Final = 1024 * 1024


class Description(Struct, frozen=True):
    """A certificate for people (`cert inspect`). All text is safe to print. Fingerprints are lower-case hex."""

    subject: str
    issuer: str
    serial: str  # lower-case hex
    not_before: datetime
    not_after: datetime
    key: str  # "rsa 2048"
    signed_with: str  # "sha256"; "" if unknown
    version: int
    is_ca: bool
    key_usage: tuple[str, ...]  # "digital_signature"; empty if the extension is absent
    extended_key_usage: tuple[str, ...]  # "clientAuth"
    alternative_names: tuple[str, ...]
    fingerprint: str  # SHA-256 of the DER
    sha1: str  # to compare with partners' portals that show only this one; never to decide
    spki: Spki

    @property
    def named(self) -> str:
        """Subject and fingerprint, as a person compares them."""
        return f"'{self.subject}', SHA-256 {format_fingerprint(self.fingerprint)}"


def load(data: bytes | str) -> list[x509.Certificate]:
    """Return all certificates in PEM or DER `data`, in order. Raises `InputError` if there is none or one is broken."""
    octets = data.encode() if isinstance(data, str) else data
    if len(octets) > _MAX_SIZE:
        raise InputError(f"the file has {len(octets)} bytes, too many for certificates", hint="is this the right file?")
    if der.begins_structure(octets):
        return [fields.load_der(octets)]
    found = [fields.load_der(b.der) for b in blocks_in(octets) if b.label in ("CERTIFICATE", "X509 CERTIFICATE")]
    if not found:
        raise InputError("there is no certificate", hint="give PEM (-----BEGIN CERTIFICATE-----) or DER")
    return found


def certificate(data: bytes | str) -> Certificate:
    """Return the one leaf in PEM or DER `data` with its intermediates, in any order.

    Raises `InputError` if there is no leaf, or more than one.
    """
    found = load(data)
    leaves = chain.leaves(found) or (found if len(found) == 1 else [])
    if len(leaves) != 1:
        message = f"there are {len(leaves)} leaf certificates among {len(found)}, not one"
        raise InputError(message, hint="give one, with its chain")
    return certificate_of(leaves[0], chain.intermediates(leaves[0], found))


def certificate_of(leaf: x509.Certificate, links: Iterable[x509.Certificate]) -> Certificate:
    """Return `leaf` as a value of the model, with the intermediates `links`, in order."""
    return Certificate(
        ref=CertificateRef(fields.fingerprint_of(leaf)),
        spki=fields.spki_of(leaf),
        subject=str(fields.subject_of(leaf)),
        issuer=str(fields.issuer_of(leaf)),
        serial=f"{fields.serial_of(leaf):x}",
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        pem=pem_of([leaf, *links]),
    )


def ca_set(data: bytes | str) -> CaSet:
    """Return the set of CA certificates in PEM or DER `data`. Raises `InputError` if there is none."""
    return ca_set_of(load(data))


def ca_set_of(found: Sequence[x509.Certificate]) -> CaSet:
    """Return `found`, at least one, as a set: the same certificates always make the same set."""
    by_fingerprint = {fields.fingerprint_of(c): c for c in found}
    fingerprints = tuple(sorted(by_fingerprint))
    return CaSet(
        ref=CaSetRef(hashlib.sha256("".join(fingerprints).encode()).hexdigest()),
        fingerprints=fingerprints,
        not_after=min(c.not_valid_after_utc for c in found),
        pem=pem_of([by_fingerprint[f] for f in fingerprints]),
    )


def describe(found: x509.Certificate) -> Description:
    """Describe one certificate."""
    extensions = extensions_of(found)
    names = fields.readable(lambda: found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, None)
    return Description(
        subject=str(fields.subject_of(found)),
        issuer=str(fields.issuer_of(found)),
        serial=f"{fields.serial_of(found):x}",
        not_before=found.not_valid_before_utc,
        not_after=found.not_valid_after_utc,
        key=str(fields.public_key_facts(found.public_key)),
        signed_with=fields.digest_of(found),
        version=found.version.value + 1,
        is_ca=bool(extensions.is_ca),
        key_usage=extensions.usages or (),
        extended_key_usage=extensions.purposes or (),
        alternative_names=tuple(str(n.value).encode("unicode_escape").decode() for n in names or ()),
        fingerprint=fields.fingerprint_of(found),
        sha1=hashlib.sha1(found.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest(),
        spki=fields.spki_of(found),
    )


def pem_of(found: Iterable[x509.Certificate]) -> str:
    """Return certificates as PEM, one after the other."""
    return "".join(c.public_bytes(Encoding.PEM).decode("ascii") for c in found)
