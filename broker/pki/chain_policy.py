"""Policy for the path from a leaf to a pinned issuing CA: each CA on it may sign, and independent verifiers agree.

`cryptography` verifies, and OpenSSL too if pyOpenSSL is installed: the partner's servers most likely use it, and it
knows constraints that the other does not. `cryptography` refuses three things that real partners' CAs do and OpenSSL
accepts: then OpenSSL alone decides, and a warning names the thing. Purposes are checked here, as OpenSSL does
(X509_check_purpose).
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
from broker.pki import certificate_fields as fields
from broker.pki import chain
from broker.pki.certificates import format_fingerprint, load
from broker.pki.strength import SMALLEST_RSA, ca_key_faults, digest_faults, public_key_facts

try:
    from OpenSSL import crypto
except ImportError:  # an extra
    crypto = None  # type: ignore[assignment]

__all__ = ["path_faults", "pinned_path", "verifier_faults"]

Path = Sequence[x509.Certificate]
_NO_OPENSSL: Final = "this needs pyOpenSSL, which is not installed (pip install '.[server]' in the checkout)"
_STRONGER: Final = "ask the partner for a certificate from a CA with a stronger key and SHA-256"
_ASK: Final = "ask the partner for its CA certificates again, and compare their fingerprints"


def pinned_path(leaf: x509.Certificate, others: Sequence[x509.Certificate], issuing: CaSet | None) -> Path | Finding:
    """Return the path from `leaf` by `others` to one of `issuing`, or the error that there is none."""
    if issuing is None:
        message = "no issuing CA is pinned for this account, so the certificate's signer is unknown"
        hint = "compare the CA's fingerprint with the partner by another way, then: --accept-ca FINGERPRINT"
        return _error("unpinned", message, hint)
    pinned = load(issuing.pem)
    path = chain.path(leaf, others, pinned)
    if path is not None:
        return path
    top = [leaf, *chain.intermediates(leaf, others)][-1]
    wanted = f"issued by '{fields.issuer_of(top)}'"
    if reason := chain.unverifiable(leaf, [*others, *pinned]):
        return _error("issuer", f"it does not chain to a pinned issuing CA: {reason}", _STRONGER)
    if any(str(fields.subject_of(ca)) == str(fields.issuer_of(top)) for ca in pinned):
        message = f"it is {wanted}, a pinned CA's name, but that CA's key did not sign it: a new CA key, or a forgery"
    else:
        names = "; ".join(f"'{fields.subject_of(ca)}'" for ca in pinned)
        message = f"it does not chain to a pinned issuing CA: it is {wanted}, and pinned is {names}"
    hint = "add missing intermediates; if the CA is new, compare its fingerprint and: --accept-ca FINGERPRINT"
    return _error("issuer", message, hint)


def path_faults(path: Path, now: datetime) -> Iterator[Finding]:
    """Yield the faults of each CA on `path`, which begins with the leaf and ends with a pinned CA."""
    for depth, ca in enumerate(path[1:]):
        yield from _ca_faults(ca, depth, now)
        yield from _ca_strength(ca, pinned=ca is path[-1])


def verifier_faults(path: Path, now: datetime) -> Iterator[Finding]:
    """Yield the refusals of independent verifiers. To be called last, if the broker's own checks found no error."""
    # A time at which all of the path is valid, nearest to now: expiry has its own finding.
    first, last = max(c.not_valid_before_utc for c in path), min(c.not_valid_after_utc for c in path)
    moment = max(first, min(now, last))
    reason, second = _cryptography_says(path, moment), _openssl_says(path, moment)
    tolerated = list(_tolerated(path)) if reason else []
    if tolerated:
        reason = _NO_OPENSSL if second is None else ""
    if refusal := reason or second:
        yield _error("chain", f"its chain does not verify: {refusal}", _ASK)
    else:
        yield from tolerated


def _ca_faults(ca: x509.Certificate, depth: int, now: datetime) -> Iterator[Finding]:
    """Yield the faults of one CA. `depth` counts the CAs between it and the leaf."""
    name = f"the CA '{fields.subject_of(ca)}'"
    if ca.not_valid_after_utc <= now:
        message = f"{name} expired on {ca.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        yield _error("ca.expired", message, "ask the partner for its new CA, and for a certificate from it")
    if ca.not_valid_before_utc > now:
        message = f"{name} is not valid before {ca.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield _error("ca.not-yet-valid", message, "wait until then, and check this machine's clock")
    extensions = fields.extensions_of(ca)
    if extensions is None:
        yield _error("ca.extensions", f"{name} has extensions that cannot be read", _ASK)
        return
    constraints = fields.extension(extensions, x509.BasicConstraints)
    if constraints is not None and not constraints.ca:
        yield _error("ca.not-a-ca", f"{name} is no CA (CA:FALSE), and may not sign certificates", _ASK)
        return
    if constraints is not None and constraints.path_length is not None and constraints.path_length < depth:
        message = f"{name} may have {constraints.path_length} CAs below it, and has {depth}"
        yield _error("ca.path-length", message, _ASK)
    usage = fields.extension(extensions, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        yield _error("ca.key-usage", f"{name} may not sign certificates: its key usage lacks keyCertSign", _ASK)
    yield from _ca_purpose(name, extensions)


def _ca_purpose(name: str, extensions: x509.Extensions) -> Iterator[Finding]:
    """Yield why an OpenSSL server would refuse a client certificate from this CA (X509_check_purpose)."""
    purposes = fields.extension(extensions, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        allowed = ", ".join(map(fields.oid_name, purposes))
        message = f"{name} may only sign for {allowed}, not for clientAuth: OpenSSL servers refuse its certificates"
        yield _error("ca.purpose", message, _ASK)
    types = fields.netscape_types(extensions)
    if types is None or "sslCA" in types:
        return
    found = f"{name} has a Netscape certificate type without sslCA ({', '.join(types) or 'empty'})"
    if any(fields.extension(extensions, kind) for kind in (x509.BasicConstraints, x509.KeyUsage)):
        yield _warning("ca.purpose", f"{found}: programs other than OpenSSL may refuse its certificates", _ASK)
    else:
        yield _error("ca.purpose", f"{found}: OpenSSL servers refuse its certificates", _ASK)


def _ca_strength(ca: x509.Certificate, *, pinned: bool) -> Iterator[Finding]:
    """Yield why others could make certificates in the name of this CA. A pinned root's signature is not verified."""
    name, key, hint = f"the CA '{fields.subject_of(ca)}'", public_key_facts(ca.public_key), _STRONGER
    if not has_errors(ca_key_faults(name, key, hint, pinned=True)):
        hint += f"; to accept this one anyway: --accept-ca {format_fingerprint(fields.fingerprint_of(ca))}"
    yield from ca_key_faults(name, key, hint, pinned=pinned)
    if not pinned or not chain.self_issued(ca):
        yield from digest_faults("certificate.ca", fields.digest_of(ca), _ASK)


def _cryptography_says(path: Path, moment: datetime) -> str:
    """Return why `cryptography` refuses the path, "" if it accepts.

    Its defaults are those of the web's PKI, which require SAN and AKI of a private CA's client certificates; so all
    extensions are permitted here, and checked one by one above.
    """
    permitted = verification.ExtensionPolicy.permit_all()
    ca_policy = permitted.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    try:
        builder = verification.PolicyBuilder().store(verification.Store([path[-1]])).time(moment)
        verifier = builder.extension_policies(ca_policy=ca_policy, ee_policy=permitted).build_client_verifier()
        verifier.verify(path[0], list(path[1:-1]))
    except (verification.VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
        # The rest quotes the certificate, whose names may hold anything.
        return str(error).split(" (encountered processing", 1)[0]
    return ""


def _openssl_says(path: Path, moment: datetime) -> str | None:
    """Return why OpenSSL refuses the path, "" if it accepts, None if pyOpenSSL is not installed.

    pyOpenSSL cannot ask it about purposes: `_ca_purpose` checks them.
    """
    if crypto is None:
        return None
    leaf, *between, top = map(crypto.X509.from_cryptography, path)
    store = crypto.X509Store()
    store.add_cert(top)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(moment)
    try:
        crypto.X509StoreContext(store, leaf, between).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""


def _tolerated(path: Path) -> Iterator[Finding]:
    """Yield a warning for each of the three things that OpenSSL accepts of a CA and `cryptography` does not."""
    hint = "nothing to do now; tell the partner, since other programs may refuse it too"
    for ca in path[1:]:
        name, key = f"the CA '{fields.subject_of(ca)}'", public_key_facts(ca.public_key)
        if fields.extension(fields.extensions_of(ca), x509.BasicConstraints) is None:
            message = f"{name} does not say that it is a CA (no BasicConstraints)"
            yield _warning("ca.no-basic-constraints", message, hint)
        if key.algorithm == "rsa" and key.bits < SMALLEST_RSA:
            yield _warning("ca.weak-key", f"{name} signs with a key of {key.bits} bits, which is too few today", hint)
    for child, issuer in pairwise(path):
        if fields.issuer_of(child) != fields.subject_of(issuer):
            message = f"the issuer of '{fields.subject_of(child)}' has other string types than the CA's own name"
            yield _warning("ca.string-types", message, hint)


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding.error(f"certificate.{code}", message, hint)


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding.warning(f"certificate.{code}", message, hint)
