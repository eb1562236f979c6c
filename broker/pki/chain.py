"""Certificate chains: leaves, intermediates, paths to a trusted CA.

A hostile reply can hold many certificates that name each other, with slow keys: so a name is read once, a signature
verified once, and never with a slow key.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from broker.model.certificate import Spki
from broker.pki import certificate_fields as fields
from broker.pki.extensions import extensions_of
from broker.pki.names import Folded, folded, shown

_STEPS: Final = 256
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


def paths(
    leaf: x509.Certificate, pool: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> Iterator[tuple[x509.Certificate, ...]]:
    """Yield the paths from `leaf` by certificates of `pool` to one of `trusted`, both ends included, shortest first.

    Names and signatures only: `verification` decides which may sign. No name with the same key is twice on a path (RFC
    4158, 2.4.2), and the search ends after some steps, so that mutually cross-signed certificates do not keep it busy.
    """
    waiting: deque[tuple[x509.Certificate, ...]] = deque([(leaf,)])
    for _ in range(_STEPS):
        if not waiting:
            return
        here = waiting.popleft()
        passed = {_identity(c) for c in here}
        yield from ((*here, top) for top in trusted if signed_by(here[-1], top))
        waiting += ((*here, c) for c in pool if _identity(c) not in passed and signed_by(here[-1], c))


def signed_by(found: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether `issuer` has the name of `found`'s issuer, and its key made the signature."""
    return _issuer(found) == _subject(issuer) and _signature_fits(found, issuer)


def unverifiable(leaf: x509.Certificate, pool: Sequence[x509.Certificate]) -> str:
    """Return why the path from `leaf` stops at a signature that the broker refuses to verify, or ""."""
    top = [leaf, *intermediates(leaf, pool)][-1]
    issuers = [c for c in pool if c != top and _subject(c) == _issuer(top)]
    for key in (fields.public_key_facts(c.public_key) for c in issuers):
        if not key.verifies:
            return f"it is signed by {shown(fields.issuer_of(top))}, and nothing is verified by that CA's key ({key})"
    digest = next(fields.digest_faults(shown(fields.subject_of(top)), fields.digest_of(top), ""), None)
    return digest.message if issuers and digest else ""


def _is_authority(found: x509.Certificate, issuers: Set[Folded]) -> bool:
    says = extensions_of(found).is_ca
    return _subject(found) in issuers if says is None else says


def _identity(found: x509.Certificate) -> tuple[Folded, Spki]:
    return _subject(found), fields.spki_of(found)


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
    digest = fields.readable(lambda: found.signature_hash_algorithm, None)
    parameters = fields.readable(lambda: found.signature_algorithm_parameters, None)
    try:
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
