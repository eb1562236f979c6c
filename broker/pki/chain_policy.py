"""Does a leaf chain to the issuing CA that is pinned, and may each CA on the way sign?

`cryptography` verifies, and OpenSSL too, where pyOpenSSL is installed: the partner's servers are most likely to ask
it, and it knows constraints that the other does not. Three things that real partners' CAs do `cryptography` cannot
accept and OpenSSL can: then OpenSSL alone decides, and a warning says which of the three it was. Purposes are our own
to look at, as OpenSSL does (X509_check_purpose).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.model.certificate import CaSet
from broker.model.finding import Finding, has_errors
from broker.pki import chain
from broker.pki.certificate_fields import (
    digest_of,
    extension,
    extensions_of,
    fingerprint_of,
    issuer_of,
    netscape_types,
    oid_name,
    subject_of,
)
from broker.pki.certificates import format_fingerprint, load
from broker.pki.strength import SMALLEST_RSA, ca_key_faults, digest_faults, public_key_facts

__all__ = ["issuing_faults", "verifier_faults"]

Path = Sequence[x509.Certificate]
_NO_OPENSSL: Final = "that takes pyOpenSSL, which is not installed (pip install '.[server]' in the checkout)"
_STRONGER: Final = "ask the partner for a certificate from a CA with a stronger key and SHA-256"
_ASK: Final = "ask the partner for its CA certificates again, and compare their fingerprints"


def issuing_faults(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], issuing: CaSet | None, now: datetime
) -> Iterator[Finding]:
    """Yield what speaks against the way from `leaf` by `others` to one of `issuing`."""
    if issuing is None:
        message = "no issuing CA is pinned for this account, so nobody vouches for who signed this certificate"
        hint = "compare the CA's fingerprint with the partner by another way, then: --accept-ca FINGERPRINT"
        yield _error("unpinned", message, hint)
        return
    way = chain.path(leaf, others, load(issuing.pem))
    if way is None:
        yield _no_way(leaf, others, issuing)
        return
    for depth, ca in enumerate(way[1:]):
        yield from _ca_faults(ca, depth, now)
        yield from _ca_strength(ca, pinned=ca is way[-1])


def verifier_faults(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], issuing: CaSet, now: datetime
) -> Iterator[Finding]:
    """Yield what a verifier that is not ours says. To be asked last, when our own checks have found no error."""
    way = chain.path(leaf, others, load(issuing.pem))
    if way is None:
        yield _no_way(leaf, others, issuing)
        return
    moment = _moment(way, now)
    reason = _cryptography_says(way, moment)
    allowed = list(_tolerated(way)) if reason else []
    second = _openssl_says(way, moment)
    if allowed:
        reason = _NO_OPENSSL if second is None else ""
    if refusal := reason or second:
        yield _error("chain", f"its chain does not verify: {refusal}", _ASK)
    else:
        yield from allowed


def _no_way(leaf: x509.Certificate, others: Path, issuing: CaSet) -> Finding:
    top = [leaf, *chain.intermediates(leaf, others)][-1]
    wanted = f"issued by '{issuer_of(top)}'"
    cas = load(issuing.pem)
    if reason := chain.unverifiable(leaf, [*others, *cas]):
        return _error("issuer", f"it does not chain to a pinned issuing CA: {reason}", _STRONGER)
    if any(str(subject_of(ca)) == str(issuer_of(top)) for ca in cas):
        message = f"it is {wanted}, a pinned CA's name, but that CA's key did not sign it: a new CA key, or a forgery"
    else:
        pinned = "; ".join(f"'{subject_of(ca)}'" for ca in cas)
        message = f"it does not chain to a pinned issuing CA: it is {wanted}, and pinned is {pinned}"
    hint = "add missing intermediates; if the CA is new, compare its fingerprint and: --accept-ca FINGERPRINT"
    return _error("issuer", message, hint)


def _ca_faults(ca: x509.Certificate, depth: int, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong with one CA. `depth` counts the CAs between it and the leaf."""
    name = f"the CA '{subject_of(ca)}'"
    if ca.not_valid_after_utc <= now:
        message = f"{name} expired on {ca.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        yield _error("ca.expired", message, "ask the partner for its new CA, and for a certificate from it")
    if ca.not_valid_before_utc > now:
        message = f"{name} is not valid before {ca.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield _error("ca.not-yet-valid", message, "wait until then, and check this machine's clock")
    extensions = extensions_of(ca)
    if extensions is None:
        yield _error("ca.extensions", f"{name} has extensions that cannot be read", _ASK)
        return
    constraints = extension(extensions, x509.BasicConstraints)
    if constraints is not None and not constraints.ca:
        yield _error("ca.not-a-ca", f"{name} is no CA (CA:FALSE), and may not sign certificates", _ASK)
        return
    if constraints is not None and constraints.path_length is not None and constraints.path_length < depth:
        message = f"{name} may have {constraints.path_length} CAs below it, and has {depth}"
        yield _error("ca.path-length", message, _ASK)
    usage = extension(extensions, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        yield _error("ca.key-usage", f"{name} may not sign certificates: its key usage lacks keyCertSign", _ASK)
    yield from _ca_purpose(name, extensions)


def _ca_purpose(name: str, extensions: x509.Extensions) -> Iterator[Finding]:
    """Yield what keeps an OpenSSL server from taking a client's certificate from this CA (X509_check_purpose)."""
    purposes = extension(extensions, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        allowed = ", ".join(map(oid_name, purposes))
        message = f"{name} may only sign for {allowed}, not for clientAuth: OpenSSL servers refuse its certificates"
        yield _error("ca.purpose", message, _ASK)
    types = netscape_types(extensions)
    if types is None or "sslCA" in types:
        return
    found = f"{name} has a Netscape certificate type without sslCA ({', '.join(types) or 'empty'})"
    if any(extension(extensions, kind) for kind in (x509.BasicConstraints, x509.KeyUsage)):
        yield _warning("ca.purpose", f"{found}: other programs than OpenSSL may refuse its certificates", _ASK)
    else:
        yield _error("ca.purpose", f"{found}: OpenSSL servers refuse its certificates", _ASK)


def _ca_strength(ca: x509.Certificate, *, pinned: bool) -> Iterator[Finding]:
    """Yield what lets others make certificates in the name of this CA. Nobody verifies a pinned root's signature."""
    name, key, hint = f"the CA '{subject_of(ca)}'", public_key_facts(ca.public_key), _STRONGER
    if not has_errors(ca_key_faults(name, key, hint, pinned=True)):
        hint += f"; if you take this one all the same: --accept-ca {format_fingerprint(fingerprint_of(ca))}"
    yield from ca_key_faults(name, key, hint, pinned=pinned)
    if not pinned or not chain.self_issued(ca):
        yield from digest_faults("certificate.ca", digest_of(ca), _ASK)


def _moment(way: Path, now: datetime) -> datetime:
    """Return a time at which all of `way` is valid, nearest to now: expiry is a finding elsewhere, said once."""
    first = max(c.not_valid_before_utc for c in way)
    last = min(c.not_valid_after_utc for c in way)
    return max(first, min(now, last))


def _cryptography_says(way: Path, moment: datetime) -> str:
    """Return why `cryptography` refuses the path, "" if it accepts.

    Its defaults are those of the web's PKI, which want SAN and AKI of a private CA's client certificates; so all
    extensions are permitted here, and judged one by one by us.
    """
    permitted = verification.ExtensionPolicy.permit_all()
    ca_policy = permitted.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    try:
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store([way[-1]]))
            .time(moment)
            .extension_policies(ca_policy=ca_policy, ee_policy=permitted)
            .build_client_verifier()
        )
        verifier.verify(way[0], list(way[1:-1]))
    except (verification.VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
        # What follows quotes the certificate, whose names may hold anything.
        return str(error).split(" (encountered processing", 1)[0]
    return ""


def _openssl_says(way: Path, moment: datetime) -> str | None:
    """Return why OpenSSL refuses the path, "" if it accepts, None where pyOpenSSL is not installed.

    It is not asked for what purpose, which pyOpenSSL cannot: extended key usage is our own to look at.
    """
    try:
        from OpenSSL import crypto
    except ImportError:
        return None
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(way[-1]))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(moment)
    between = [crypto.X509.from_cryptography(c) for c in way[1:-1]]
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(way[0]), between).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""


def _tolerated(way: Path) -> Iterator[Finding]:
    """Yield a warning for each of the three things that OpenSSL accepts of a CA and `cryptography` does not."""
    hint = "nothing to do at once; tell the partner, since other programs may refuse it too"
    for ca in way[1:]:
        name = f"the CA '{subject_of(ca)}'"
        if extension(extensions_of(ca), x509.BasicConstraints) is None:
            yield _warning(
                "ca.no-basic-constraints", f"{name} does not say that it is a CA (no BasicConstraints)", hint
            )
        key = public_key_facts(ca.public_key)
        if key.algorithm == "rsa" and key.bits < SMALLEST_RSA:
            message = f"{name} signs with a key of {key.bits} bits, which is too few today"
            yield _warning("ca.weak-key", message, hint)
    for child, issuer in pairwise(way):
        if issuer_of(child) != subject_of(issuer):
            message = f"the issuer of '{subject_of(child)}' is written in other string types than the CA's own name"
            yield _warning("ca.string-types", message, hint)


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding.error(f"certificate.{code}", message, hint)


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding.warning(f"certificate.{code}", message, hint)
