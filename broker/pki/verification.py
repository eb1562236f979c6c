"""Verify a certificate from a reply: the key and subject that were requested, fit for a TLS client, from a pinned CA.

A reply is untrusted input. Every fault has its own code and message. `chain` finds a path whose signatures hold, and
each CA on it may sign by our rules. Then OpenSSL verifies it too, since the partner's servers most likely use it, and
it knows further constraints. Purposes are checked here, as OpenSSL does (X509_check_purpose).
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Final

from cryptography import x509
from msgspec import Struct
from OpenSSL import crypto

from broker.copies import replace
from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.duration import duration_text
from broker.model.finding import Finding, Severity, has_errors, worst_first
from broker.model.fingerprint import format_fingerprint
from broker.model.subject import ATTRIBUTES, Subject, SubjectRules
from broker.pki import certificate_fields as fields
from broker.pki import chain
from broker.pki.certificates import load
from broker.pki.extensions import ANY_PURPOSE, extensions_of
from broker.pki.names import listed, shown
from broker.pki.subject_values import login_mismatch, unknown_attributes

Path = Sequence[x509.Certificate]
_CLOCK_SKEW: Final = timedelta(minutes=5)
_SHORT: Final = timedelta(days=30)
_LONG: Final = timedelta(days=3 * 366)
_FACTORED_RSA: Final = 1024  # bits; below, one rented computer factors it
_SMALLEST_CURVE: Final = 224  # bits, as strong as RSA 2048 (NIST SP 800-57, table 2)
_CLOCK: Final = "wait until then, and check this machine's clock"
_REISSUE: Final = "ask the partner to issue it again, from the request as it was sent"
_CONFIRM: Final = "ask the partner whether this is intended"
_STRONGER: Final = "ask the partner for a certificate from a CA with a stronger key and SHA-256"
_ASK: Final = "ask the partner for its CA certificates again, and compare their fingerprints"
_TELL: Final = "nothing to do now; tell the partner, since other programs may refuse it too"
_PUBLIC: Final = re.compile(  # the root programs of browsers end clientAuth in 2026 and 2027
    r"\bO=(Let's Encrypt|DigiCert|Sectigo|GlobalSign|GoDaddy|Google Trust Services|Amazon|SSL Corp|Entrust|IdenTrust"
    r"|ZeroSSL|Certum|Asseco|Actalis|Buypass|HARICA|QuoVadis|SwissSign|Deutsche Telekom Security|Certigna|Trustwave)"
)
_MOST_PATHS: Final = 64
_USUAL: Final = ("basicConstraints", "keyUsage", "extendedKeyUsage", "subjectAltName", "nsCertType")
_RARE: Final = (
    *("nameConstraints", "certificatePolicies", "policyConstraints", "policyMappings", "inhibitAnyPolicy"),
    "cRLDistributionPoints",
)
ACCEPTABLE: Final = (  # errors that a person may accept: only the partner's server can decide about them
    *("certificate.cn", "certificate.cn.duplicate", "certificate.cn.multi-valued", "certificate.subject"),
    *("certificate.version", "certificate.key-usage", "certificate.purpose", "certificate.ca.purpose"),
)
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which pyOpenSSL does not name
_error, _warning, _note = Finding.error, Finding.warning, Finding.note


class Expected(Struct, frozen=True):
    """The rules that an account's next certificate must meet."""

    rules: SubjectRules
    login: str
    issuing: CaSet | None  # pinned for the account, or just accepted by a person; None is an error
    spki: Spki  # of the open request's key
    requested: Subject  # of the open request


def verify_certificate(certificate: Certificate, expected: Expected, now: datetime) -> tuple[Finding, ...]:
    """Return all faults of `certificate` (its `pem`: leaf, then intermediates), errors first. `now` is in UTC.

    Raises `InputError` if `pem` cannot be read.
    """
    leaf, *others = load(certificate.pem)
    found = [*_requested(leaf, expected), *_times(leaf, now), *_purpose(leaf), *_strength(leaf)]
    pinned = load(expected.issuing.pem) if expected.issuing else []
    path = best_path(leaf, others, pinned, now)
    found += _path_faults(path, now) if path else [_no_path(leaf, others, pinned)]
    found = [replace(one, code=f"certificate.{one.code}") for one in found]
    if path and not has_errors(f for f in found if f.code not in ACCEPTABLE):
        found += _openssl_faults(path)
    return worst_first(found)


def best_path(leaf: x509.Certificate, pool: Path, trusted: Path, now: datetime) -> Path | None:
    """Return the path from `leaf` by `pool` to one of `trusted` that has the fewest faults, None if there is none."""

    def faults(path: Path) -> tuple[int, int]:
        found = list(_path_faults(path, now))
        found += [] if has_errors(found) else _openssl_faults(path)
        return sum(f.severity is Severity.ERROR for f in found), len(found)

    return min(islice(chain.paths(leaf, pool, trusted), _MOST_PATHS), key=faults, default=None)


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
        message = f"CN is there {len(names)} times ({listed(map(shown, names))}): servers differ in which one counts"
        yield _error("cn.duplicate", message, _REISSUE)
    if "CN" in subject.multi_valued:
        message = f"CN shares its part of the name with another attribute (written with '+'): {shown(subject)}"
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
        code, lifetime = "short" if end - start < _SHORT else "long", duration_text(end - start)
        yield _note(code, f"its lifetime is {lifetime}", "check that the partner intends this lifetime")


def _purpose(leaf: x509.Certificate) -> Iterator[Finding]:
    if leaf.version is not x509.Version.v3:
        yield _error("version", "it is an X.509 version 1 certificate, which states no purpose", _REISSUE)
    extensions = extensions_of(leaf)
    yield from _extension_faults("it", leaf, _REISSUE)
    if extensions.is_ca:
        message = "it is a CA certificate (CA:TRUE): its key could sign others"
        yield _error("is-ca", message, "import the leaf; if this is the leaf, ask for one that is no CA")
    elif extensions.path_length is not None:
        message = "it is no CA (CA:FALSE), and still limits the CAs below it (pathlen)"
        yield _warning("path-length", message, _TELL)
    if extensions.usages is not None and "digital_signature" not in extensions.usages:
        message = "its key usage lacks digitalSignature, which TLS 1.3 requires (RFC 8446, 4.4.2.2)"
        # OpenSSL is content with key agreement.
        yield (_warning if "key_agreement" in extensions.usages else _error)("key-usage", message, _REISSUE)
    if extensions.netscape is not None and "client" not in extensions.netscape:
        types = ", ".join(extensions.netscape) or "empty"
        yield _error("purpose", f"its Netscape certificate type ({types}) lacks client: OpenSSL refuses it", _REISSUE)
    if (purposes := extensions.other_purposes) is not None:
        message = f"its extended key usage ({purposes}) lacks clientAuth: OpenSSL servers refuse it"
        yield (_warning if ANY_PURPOSE in purposes else _error)("purpose", message, _REISSUE)
    elif extensions.purposes is not None and (public := _PUBLIC.search(str(fields.issuer_of(leaf)))):
        message = f"its CA is public ({public[1]}), and public CAs end clientAuth: the next will lack it"
        yield _warning("client-auth-ends", message, "ask the partner which CA it accepts for the next certificate")


def _strength(leaf: x509.Certificate) -> Iterator[Finding]:
    yield from fields.rsa_faults(fields.public_key_facts(leaf.public_key))
    yield from fields.signature_faults("it", leaf, _REISSUE)
    yield from fields.serial_faults("it", leaf)


def _extension_faults(name: str, found: x509.Certificate, hint: str) -> Iterator[Finding]:
    """Yield extensions that verifiers cannot read, do not know, or seldom support."""
    extensions = extensions_of(found)
    if extensions.faulty:
        message = f"{name} has extensions that are broken or there twice: {listed(extensions.faulty)}"
        yield _error("extensions", message, hint)
    elif fields.readable(lambda: found.extensions, None) is None:
        yield _warning("extensions", f"{name} has an extension that some programs cannot read", _TELL)
    if rare := [one for one in extensions.critical if one in _RARE]:
        message = f"{name} has a critical extension that OpenSSL knows and other programs refuse: {listed(rare)}"
        yield _warning("critical", message, _TELL)
    if unknown := [one for one in extensions.critical if one not in (*_USUAL, *_RARE)]:
        message = f"{name} has an unknown critical extension: {listed(unknown)}"
        yield _error("critical", message, "ask the partner for its purpose")


def _no_path(leaf: x509.Certificate, others: list[x509.Certificate], pinned: list[x509.Certificate]) -> Finding:
    if not pinned:
        message = "no issuing CA is pinned for this account, so the certificate's signer is unknown"
        hint = "compare the CA's fingerprint with the partner by another way, then: --accept-ca FINGERPRINT"
        return _error("unpinned", message, hint)
    if reason := chain.unverifiable(leaf, [*others, *pinned]):
        return _error("issuer", f"it does not chain to a pinned issuing CA: {reason}", _STRONGER)
    top = [leaf, *chain.intermediates(leaf, others)][-1]
    wanted, names = shown(fields.issuer_of(top)), [shown(fields.subject_of(ca)) for ca in pinned]
    message = f"it does not chain to a pinned issuing CA: it is issued by {wanted}, and pinned is {listed(names)}"
    if wanted in names:
        message = f"it is issued by {wanted}, and the pinned CA's key did not sign it: a new CA key, or a forgery"
    hint = "add missing intermediates; if the CA is new, compare its fingerprint and: --accept-ca FINGERPRINT"
    return _error("issuer", message, hint)


def _path_faults(path: Path, now: datetime) -> Iterator[Finding]:
    for ca in path[1:]:
        name = f"the CA {shown(fields.subject_of(ca))}"
        found = [*_ca_faults(ca, name, now), *_ca_strength(ca, name, pinned=ca is path[-1])]
        found += fields.serial_faults(name, ca)
        yield from (replace(one, code=f"ca.{one.code}") for one in found)
    for child, issuer in pairwise(path):
        if fields.issuer_of(child) != fields.subject_of(issuer):
            message = f"the issuer of {shown(fields.subject_of(child))} has other string types than the CA's own name"
            yield _warning("ca.string-types", message, _TELL)


def _ca_faults(ca: x509.Certificate, name: str, now: datetime) -> Iterator[Finding]:
    """Yield why this CA may not sign certificates, or others refuse them. OpenSSL checks the length of the path."""
    if ca.not_valid_after_utc <= now:
        message = f"{name} expired on {ca.not_valid_after_utc:%F %H:%M} UTC"
        yield _error("expired", message, "ask the partner for its new CA, and for a certificate from it")
    if ca.not_valid_before_utc > now:
        yield _error("not-yet-valid", f"{name} is not valid before {ca.not_valid_before_utc:%F %H:%M} UTC", _CLOCK)
    extensions = extensions_of(ca)
    yield from _extension_faults(name, ca, _ASK)
    if extensions.is_ca is False:
        yield _error("not-a-ca", f"{name} is no CA (CA:FALSE), and may not sign certificates", _ASK)
        return
    if extensions.usages is not None and "key_cert_sign" not in extensions.usages:
        yield _error("key-usage", f"{name} may not sign certificates: its key usage lacks keyCertSign", _ASK)
    if (purposes := extensions.other_purposes) is not None:
        message = f"{name} may only sign for {purposes}, not for clientAuth: OpenSSL servers refuse its certificates"
        yield _error("purpose", message, _ASK)
    if extensions.netscape is not None and "sslCA" not in extensions.netscape:
        says_nothing = extensions.is_ca is None and extensions.usages is None
        judge, who = (_error, "OpenSSL servers") if says_nothing else (_warning, "some programs")
        message = f"{name} has a Netscape certificate type without sslCA ({', '.join(extensions.netscape) or 'empty'})"
        yield judge("purpose", f"{message}: {who} refuse its certificates", _ASK)
    if extensions.is_ca is None:
        yield _warning("no-basic-constraints", f"{name} does not say that it is a CA (no BasicConstraints)", _TELL)
    if not fields.subject_of(ca).attributes:
        yield _warning("no-name", "the CA has no name (an empty subject)", _TELL)


def _ca_strength(ca: x509.Certificate, name: str, *, pinned: bool) -> Iterator[Finding]:
    """Yield why others could make certificates in the name of this CA. A pinned root's signature is not verified.

    A person accepted a `pinned` CA: then RSA is refused only below 1024 bits.
    """
    key = fields.public_key_facts(ca.public_key)
    is_rsa, least = key.algorithm == "rsa", {"rsa": _FACTORED_RSA, "ec": _SMALLEST_CURVE}.get(key.algorithm, 0)
    if key.bits < least or key.flaw or (is_rsa and key.bits < fields.SMALLEST_RSA):
        hopeless = key.bits < least or key.flaw
        accept = f"; to accept this one anyway: --accept-ca {format_fingerprint(fields.fingerprint_of(ca))}"
        message = f"{name} has a weak key ({key}{key.flaw and ', '}{key.flaw}): others can sign with it"
        if hopeless or not pinned:
            yield _error("weak-key", message, _STRONGER + ("" if hopeless else accept))
        else:
            yield _warning("weak-key", message, _STRONGER)
    if is_rsa and key.exponent < fields.EXPONENT:
        message = f"{name} has an RSA key with the small exponent {key.exponent}; today's is {fields.EXPONENT}"
        yield _warning("exponent", message, _STRONGER)
    if not key.bits:
        yield _warning("algorithm", f"{name} signs with {key}, which some programs do not verify", _TELL)
    if not pinned or not chain.self_issued(ca):
        yield from fields.signature_faults(name, ca, _ASK)


def _openssl_faults(path: Path) -> Iterator[Finding]:
    """Yield why OpenSSL refuses the path. Times have findings of their own, and pyOpenSSL cannot ask about purposes."""
    try:
        leaf, *between, top = map(crypto.X509.from_cryptography, path)
        store = crypto.X509Store()
        store.add_cert(top)
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME)
        crypto.X509StoreContext(store, leaf, between).verify_certificate()
    except crypto.X509StoreContextError as error:
        name = shown(fields.subject_of(path[min(error.errors[1], len(path) - 1)]))
        yield _error("certificate.chain", f"its chain does not verify, says OpenSSL of {name}: {error}", _ASK)
    except crypto.Error:
        yield _error("certificate.chain", "OpenSSL cannot read a certificate of its chain", _ASK)
