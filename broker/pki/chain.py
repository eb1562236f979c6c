"""How certificates hang together: which are leaves, which intermediates lead on, whether a path ends at a trusted CA.

A reply's sender chooses how many certificates name each other, and how slow their keys are: so a name is read once, a
signature verified once, and never by a key that makes this slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from broker.pki.certificate_fields import (
    digest_of,
    extension,
    extensions_of,
    fingerprint_of,
    is_ca,
    issuer_of,
    subject_of,
)
from broker.pki.names import Folded, folded
from broker.pki.strength import digest_faults, public_key_facts

__all__ = ["intermediates", "leaves", "path", "self_issued", "signed_by", "unverifiable"]

_PAIRS: Final = 2048  # of certificates; a reply of 32 has half as many


def leaves(found: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates of `found` that are no CA: neither say so, nor are named as an issuer, their own or here.

    By names alone, since this only sorts: nothing is believed of a certificate for being no leaf.
    """
    issuers = {_issuer(c) for c in found}
    return [c for c in found if not _is_authority(c, issuers)]


def self_issued(found: x509.Certificate) -> bool:
    """Whether subject and issuer are the same name: a root, or somebody's own work."""
    return _subject(found) == _issuer(found)


def intermediates(leaf: x509.Certificate, pool: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """Return those of `pool` that lead on from `leaf`, in order, without a root."""
    others = [c for c in pool if c != leaf and not self_issued(c)]
    found: list[x509.Certificate] = []
    here = leaf
    while issuer := next((c for c in others if c not in found and signed_by(here, c)), None):
        found.append(issuer)
        here = issuer
    return found


def path(
    leaf: x509.Certificate, pool: Iterable[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...] | None:
    """Return a shortest path from `leaf` by certificates of `pool` to one of `trusted`, both ends included, or None.

    Names and signatures only: `chain_policy` decides which may sign. Breadth first, and no certificate twice,
    so that a pool of mutually cross-signed ones costs no more than a signature for each pair.
    """
    others = list(pool)
    seen = {fingerprint_of(leaf)}
    waiting: deque[tuple[x509.Certificate, ...]] = deque([(leaf,)])
    while waiting:
        here = waiting.popleft()
        for top in trusted:
            if signed_by(here[-1], top):
                return (*here, top)
        for other in others:
            if fingerprint_of(other) not in seen and signed_by(here[-1], other):
                seen.add(fingerprint_of(other))
                waiting.append((*here, other))
    return None


def signed_by(found: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` has the name that `found` gives as its issuer, and its key made the signature."""
    return _issuer(found) == _subject(issuer) and _signature_fits(found, issuer)


def unverifiable(leaf: x509.Certificate, pool: Sequence[x509.Certificate]) -> str:
    """Say why the way from `leaf` stops at a signature that is not verified here, though its CA is in `pool`; or ""."""
    top = [leaf, *intermediates(leaf, pool)][-1]
    issuers = [c for c in pool if c != top and _subject(c) == _issuer(top)]
    for key in (public_key_facts(c.public_key) for c in issuers):
        if not key.verifies:
            return f"it is signed by '{issuer_of(top)}', and nothing is verified by that CA's key ({key})"
    digest = next(digest_faults("", digest_of(top), ""), None)
    return f"'{subject_of(top)}' cannot be verified: {digest.message}" if issuers and digest else ""


def _is_authority(found: x509.Certificate, issuers: Set[Folded]) -> bool:
    if is_ca(found):
        return True
    return extension(extensions_of(found), x509.BasicConstraints) is None and _subject(found) in issuers


@lru_cache(_PAIRS)
def _subject(found: x509.Certificate) -> Folded:
    return folded(subject_of(found))


@lru_cache(_PAIRS)
def _issuer(found: x509.Certificate) -> Folded:
    return folded(issuer_of(found))


@lru_cache(_PAIRS)
def _signature_fits(found: x509.Certificate, issuer: x509.Certificate) -> bool:
    if not public_key_facts(issuer.public_key).verifies:
        return False
    try:
        _verify_signature(found, issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _verify_signature(found: x509.Certificate, issuer: x509.Certificate) -> None:
    # Not `verify_directly_issued_by`: it compares names byte for byte, and real CAs change string types in between.
    key, digest, parameters = issuer.public_key(), found.signature_hash_algorithm, found.signature_algorithm_parameters
    signature, signed = found.signature, found.tbs_certificate_bytes
    match key:
        case rsa.RSAPublicKey() if digest is not None and isinstance(parameters, padding.PSS | padding.PKCS1v15):
            key.verify(signature, signed, parameters, digest)
        case ec.EllipticCurvePublicKey() if isinstance(parameters, ec.ECDSA):
            key.verify(signature, signed, parameters)
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            key.verify(signature, signed)
        case _:
            raise InvalidSignature
