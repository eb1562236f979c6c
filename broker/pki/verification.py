"""Verify a certificate from a reply: the key and subject that were requested, fit for a TLS client, from a pinned CA.

A reply is untrusted input. Every fault has its own code and message. Each CA on the path may sign, and independent
verifiers agree: `cryptography` verifies, and OpenSSL too if pyOpenSSL is installed, since the partner's servers most
likely use it, and it knows constraints that the other does not. `cryptography` refuses three things that real
partners' CAs do and OpenSSL accepts: then OpenSSL alone decides, and a warning names the thing. Purposes are checked
here, as OpenSSL does (X509_check_purpose).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.x509 import verification

from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding, has_errors
from broker.model.subject import ATTRIBUTES, Subject, SubjectRules
from broker.pki import certificate_fields as fields
from broker.pki import chain
from broker.pki.certificates import format_fingerprint, load
from broker.pki.names import shown
from broker.pki.subject_values import login_mismatch, unknown_attributes

try:
    from OpenSSL import crypto
except ImportError:  # an extra
    crypto = None  # type: ignore[assignment]

Path = Sequence[x509.Certificate]
_CLOCK_SKEW: Final = timedelta(minutes=5)
_SHORT: Final = timedelta(days=30)
_LONG: Final = timedelta(days=3 * 366)
_FACTORED_RSA: Final = 1024  # bits; below, one rented computer factors it
_SMALLEST_CURVE: Final = 224  # bits, as strong as RSA 2048 (NIST SP 800-57, table 2)
_CLOCK: Final = "wait until then, and check this machine's clock"
_REISSUE: Final = "ask the partner to issue it again, from the request as it was sent"
_CONFIRM: Final = "ask the partner whether this is intended"
_NO_OPENSSL: Final = "this needs pyOpenSSL, which is not installed (pip install '.[server]' in the checkout)"
_STRONGER: Final = "ask the partner for a certificate from a CA with a stronger key and SHA-256"
_ASK: Final = "ask the partner for its CA certificates again, and compare their fingerprints"
_TELL: Final = "nothing to do now; tell the partner, since other programs may refuse it too"


@dataclass(frozen=True, slots=True)
class Expected:
    """The rules that an account's next certificate must meet."""

    rules: SubjectRules
    login: str
    issuing: CaSet | None  # pinned for the account, or just accepted by a person; None is an error
    spki: Spki  # of the open request's key
    requested: Subject  # of the open request


def verify_certificate(certificate: Certificate, expected: Expected, now: datetime) -> tuple[Finding, ...]:
    """Return all faults of `certificate` (its `pem`: leaf, then intermediates). `now` is in UTC.

    Raises `InputError` if `pem` cannot be read.
    """
    leaf, *others = load(certificate.pem)
    found = [
        *_requested(leaf, expected),
        *_times(leaf, now),
        *fields.rsa_faults("certificate", fields.public_key_facts(leaf.public_key)),
        *fields.digest_faults("certificate", fields.digest_of(leaf), _REISSUE),
        *_purpose(leaf),
    ]
    path = _pinned_path(leaf, others, expected.issuing)
    if isinstance(path, Finding):
        return (*found, path)
    for depth, ca in enumerate(path[1:]):
        found += (*_ca_faults(ca, depth, now), *_ca_strength(ca, pinned=ca is path[-1]))
    return tuple(found) if has_errors(found) else (*found, *_verifier_faults(path, now))


def _requested(leaf: x509.Certificate, expected: Expected) -> Iterator[Finding]:
    """Yield the differences of key and subject from those that were requested."""
    subject, spki = fields.subject_of(leaf), fields.spki_of(leaf)
    if spki != expected.spki:
        message = f"the certificate is for another key (SPKI {spki[:16]}…) than the request ({expected.spki[:16]}…)"
        yield _error("key", message, "import the certificate that answers the open request")
    names = [a.value for a in subject.attributes if a.name == "CN"]
    if not subject.attributes:
        yield _error("subject", "the certificate has no subject", _REISSUE)
    elif expected.rules.common_name_is_login and (message := login_mismatch("".join(names[:1]), expected.login)):
        yield _error("cn", message, "check that the certificate belongs to this account; if so, ask for it again")
    if len(names) > 1:
        message = f"CN is there {len(names)} times ({', '.join(map(shown, names))}): servers differ in which one counts"
        yield _error("cn.duplicate", message, _REISSUE)
    if "CN" in subject.multi_valued:
        message = f"CN shares its part of the name with another attribute (written with '+'): {shown(str(subject))}"
        yield _error("cn.multi-valued", message, _REISSUE)
    for message, _ in unknown_attributes(subject):
        yield _warning("subject.unknown", message, _CONFIRM)
    for attribute in ATTRIBUTES:
        if attribute == "CN" and expected.rules.common_name_is_login:  # another login has its own error
            continue
        found = [a.value for a in subject.attributes if a.name == attribute]
        wanted = [value for name, value in expected.requested.attributes if name == attribute]
        if sorted(found) != sorted(wanted):
            message = f"{attribute} {_said(found)} in the certificate, and {_said(wanted)} in the request"
            yield _warning("subject.changed", message, _CONFIRM)


def _said(values: Sequence[str]) -> str:
    return f"is {shown(', '.join(values))}" if values else "is not"


def _times(leaf: x509.Certificate, now: datetime) -> Iterator[Finding]:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end <= start:
        yield _error("times", f"it ends ({end:%Y-%m-%d}) before it begins ({start:%Y-%m-%d})", _REISSUE)
        return
    if end <= now:
        yield _error("expired", f"it expired on {end:%Y-%m-%d %H:%M} UTC", "import the newer one, or request one")
    if start > now + _CLOCK_SKEW:
        message = f"it is not valid before {start:%Y-%m-%d %H:%M} UTC; the time here is {now:%Y-%m-%d %H:%M} UTC"
        yield _error("not-yet-valid", message, _CLOCK)
    elif start > now:
        yield _note("clock", f"it begins {(start - now).seconds} s from now", "check this machine's clock")
    if not _SHORT <= end - start <= _LONG:
        code, lifetime = "short" if end - start < _SHORT else "long", str(end - start).removesuffix(", 0:00:00")
        yield _note(code, f"its lifetime is {lifetime}", "check that the partner intends this lifetime")


def _purpose(leaf: x509.Certificate) -> Iterator[Finding]:
    if leaf.version is not x509.Version.v3:
        yield _error("version", "it is an X.509 version 1 certificate, which states no purpose", _REISSUE)
        return
    extensions = fields.extensions_of(leaf)
    if extensions is None:
        yield _error("extensions", "its extensions cannot be read: one is broken or occurs twice", _REISSUE)
        return
    if fields.is_ca(leaf):
        message = "it is a CA certificate (CA:TRUE): its key could sign others"
        yield _error("is-ca", message, "import the leaf; if this is the leaf, ask for one that is no CA")
    usage = fields.extension(extensions, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        message = "its key usage lacks digitalSignature, which TLS 1.3 requires (RFC 8446, 4.4.2.2)"
        yield _error("key-usage", message, _REISSUE)
    types = fields.netscape_types(extensions)
    if types is not None and "client" not in types:
        message = f"its Netscape certificate type ({', '.join(types) or 'empty'}) lacks client: OpenSSL refuses it"
        yield _error("purpose", message, _REISSUE)
    if (purposes := fields.purposes_without_client(extensions)) is not None:
        message = f"its extended key usage ({', '.join(purposes)}) lacks clientAuth: OpenSSL servers refuse it"
        yield (_warning if fields.ANY_PURPOSE in purposes else _error)("purpose", message, _REISSUE)
    for found in extensions:
        if found.critical and isinstance(found.value, x509.UnrecognizedExtension):
            message = f"it has an unknown critical extension: {found.oid.dotted_string}"
            yield _error("critical", message, "ask the partner for its purpose")


def _pinned_path(leaf: x509.Certificate, others: Sequence[x509.Certificate], issuing: CaSet | None) -> Path | Finding:
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


def _verifier_faults(path: Path, now: datetime) -> Iterator[Finding]:
    """Yield the refusals of independent verifiers."""
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
        yield _error("ca.not-yet-valid", message, _CLOCK)
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
    if (purposes := fields.purposes_without_client(extensions)) is not None:
        allowed = ", ".join(purposes) or "nothing"
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
    """Yield why others could make certificates in the name of this CA. A pinned root's signature is not verified.

    A person accepted a `pinned` CA: then RSA is refused only below 1024 bits.
    """
    name, key = f"the CA '{fields.subject_of(ca)}'", fields.public_key_facts(ca.public_key)
    least = {"rsa": _FACTORED_RSA, "ec": _SMALLEST_CURVE}.get(key.algorithm, 0)
    if key.bits < least or (key.algorithm == "rsa" and key.bits < fields.SMALLEST_RSA and not pinned):
        accept = f"; to accept this one anyway: --accept-ca {format_fingerprint(fields.fingerprint_of(ca))}"
        hint = _STRONGER + (accept if key.bits >= least else "")
        yield _error("ca.weak-key", f"{name} has a weak key ({key}): others can sign with it", hint)
    if key.algorithm == "rsa" and key.exponent < fields.EXPONENT:
        message = f"{name} has an RSA key with the small exponent {key.exponent}; today's is {fields.EXPONENT}"
        yield _warning("ca.exponent", message, _STRONGER)
    if not pinned or not chain.self_issued(ca):
        yield from fields.digest_faults("certificate.ca", fields.digest_of(ca), _ASK)


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

    pyOpenSSL cannot ask it about purposes: `_ca_faults` checks them.
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
    for ca in path[1:]:
        name, key = f"the CA '{fields.subject_of(ca)}'", fields.public_key_facts(ca.public_key)
        if fields.extension(fields.extensions_of(ca), x509.BasicConstraints) is None:
            message = f"{name} does not say that it is a CA (no BasicConstraints)"
            yield _warning("ca.no-basic-constraints", message, _TELL)
        if key.algorithm == "rsa" and key.bits < fields.SMALLEST_RSA:
            yield _warning("ca.weak-key", f"{name} signs with a key of {key.bits} bits, which is too few today", _TELL)
    for child, issuer in pairwise(path):
        if fields.issuer_of(child) != fields.subject_of(issuer):
            message = f"the issuer of '{fields.subject_of(child)}' has other string types than the CA's own name"
            yield _warning("ca.string-types", message, _TELL)


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding.error(f"certificate.{code}", message, hint)


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding.warning(f"certificate.{code}", message, hint)


def _note(code: str, message: str, hint: str) -> Finding:
    return Finding.note(f"certificate.{code}", message, hint)
