"""Certificate chains: leaves, intermediates, paths to a trusted CA.

A hostile reply can hold many certificates that name each other, with slow keys: so a name is read once, a signature
verified once, and never with a slow key.
"""

from collections import deque
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from broker.pki import certificate_fields as fields
from broker.pki.names import Folded, folded

_PAIRS: Final = 2048  # of certificates; a reply of 32 has half as many


def leaves(found: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates that are no CA: none says that it is, nor is its subject an issuer in `found`.

    By names alone, since this only sorts: a leaf is not trusted for being one.
    """
    issuers = {_issuer(c) for c in found}
    return [c for c in found if not _is_authority(c, issuers)]


def self_issued(found: x509.Certificate) -> bool:
    """Return whether subject and issuer are the same name, as a root's are."""
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

    Names and signatures only: `verification` decides which may sign. Breadth first, and no certificate twice, so that
    a pool of mutually cross-signed ones costs no more than a signature for each pair.
    """
    others = list(pool)
    seen = {fields.fingerprint_of(leaf)}
    waiting: deque[tuple[x509.Certificate, ...]] = deque([(leaf,)])
    while waiting:
        here = waiting.popleft()
        for top in trusted:
            if signed_by(here[-1], top):
                return (*here, top)
        for other in others:
            if fields.fingerprint_of(other) not in seen and signed_by(here[-1], other):
                seen.add(fields.fingerprint_of(other))
                waiting.append((*here, other))
    return None


def signed_by(found: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether `issuer` has the name of `found`'s issuer, and its key made the signature."""
    return _issuer(found) == _subject(issuer) and _signature_fits(found, issuer)


def unverifiable(leaf: x509.Certificate, pool: Sequence[x509.Certificate]) -> str:
    """Return why the path from `leaf` stops at a signature that the broker refuses to verify, or ""."""
    top = [leaf, *intermediates(leaf, pool)][-1]
    issuers = [c for c in pool if c != top and _subject(c) == _issuer(top)]
    for key in (fields.public_key_facts(c.public_key) for c in issuers):
        if not key.verifies:
            return f"it is signed by '{fields.issuer_of(top)}', and nothing is verified by that CA's key ({key})"
    digest = next(fields.digest_faults(fields.digest_of(top), ""), None)
    return f"'{fields.subject_of(top)}' cannot be verified: {digest.message}" if issuers and digest else ""


def _is_authority(found: x509.Certificate, issuers: Set[Folded]) -> bool:
    constraints = fields.extension(fields.extensions_of(found), x509.BasicConstraints)
    return constraints.ca if constraints is not None else _subject(found) in issuers


@lru_cache(_PAIRS)
def _subject(found: x509.Certificate) -> Folded:
    return folded(fields.subject_of(found))


@lru_cache(_PAIRS)
def _issuer(found: x509.Certificate) -> Folded:
    return folded(fields.issuer_of(found))


@lru_cache(_PAIRS)
def _signature_fits(found: x509.Certificate, issuer: x509.Certificate) -> bool:
    # Not `verify_directly_issued_by`: it compares names byte for byte, and real CAs change string types in between.
    if not fields.public_key_facts(issuer.public_key).verifies:
        return False
    signature, signed = found.signature, found.tbs_certificate_bytes
    try:
        digest, parameters = found.signature_hash_algorithm, found.signature_algorithm_parameters
        match key := issuer.public_key():
            case rsa.RSAPublicKey() if digest is not None and isinstance(parameters, padding.PSS | padding.PKCS1v15):
                key.verify(signature, signed, parameters, digest)
            case ec.EllipticCurvePublicKey() if isinstance(parameters, ec.ECDSA):
                key.verify(signature, signed, parameters)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, signed)
            case _:
                return False
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
