"""Verify a certificate from a reply: the key and subject that were requested, fit for a TLS client, from a pinned CA.

A reply is untrusted input. Every fault has its own code and message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding, has_errors
from broker.model.subject import ATTRIBUTES, Subject, SubjectRules
from broker.pki import certificate_fields as fields
from broker.pki.certificates import load
from broker.pki.chain_policy import path_faults, pinned_path, verifier_faults
from broker.pki.names import ReadName, shown
from broker.pki.strength import digest_faults, public_key_facts, rsa_faults
from broker.pki.subject_values import login_mismatch, unknown_attributes

__all__ = ["CLOCK_SKEW", "Expected", "verify_certificate"]

CLOCK_SKEW: Final = timedelta(minutes=5)
_SHORT: Final = timedelta(days=30)
_LONG: Final = timedelta(days=3 * 366)
_REISSUE: Final = "ask the partner to issue it again, from the request as it was sent"
_CONFIRM: Final = "ask the partner whether this is intended"
_LIFETIME: Final = "check that the partner intends this lifetime"


@dataclass(frozen=True, slots=True)
class Expected:
    """The rules that an account's next certificate must meet."""

    rules: SubjectRules
    login: str
    issuing: CaSet | None  # pinned for the account, or just accepted by a person; None is an error
    spki: Spki | None = None  # of the open request's key; None for an imported pair
    requested: Subject | None = None  # subject of the open request


def verify_certificate(certificate: Certificate, expected: Expected, now: datetime) -> tuple[Finding, ...]:
    """Return all faults of `certificate` (its `pem`: leaf, then intermediates). `now` is in UTC.

    Raises `InputError` if `pem` cannot be read.
    """
    leaf, *others = load(certificate.pem)
    found = [
        *_key(leaf, expected.spki),
        *_subject(fields.subject_of(leaf), expected),
        *_times(leaf, now),
        *rsa_faults("certificate", public_key_facts(leaf.public_key)),
        *digest_faults("certificate", fields.digest_of(leaf), _REISSUE),
        *_purpose(leaf),
    ]
    path = pinned_path(leaf, others, expected.issuing)
    if isinstance(path, Finding):
        return (*found, path)
    found += path_faults(path, now)
    return tuple(found) if has_errors(found) else (*found, *verifier_faults(path, now))


def _key(leaf: x509.Certificate, expected: Spki | None) -> Iterator[Finding]:
    found = fields.spki_of(leaf)
    if expected is not None and found != expected:
        message = f"the certificate is for another key (SPKI {found[:16]}…) than the request ({expected[:16]}…)"
        yield _error("key", message, "import the certificate that answers the open request")


def _subject(subject: ReadName, expected: Expected) -> Iterator[Finding]:
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
    for message in _changed(subject, expected.rules, expected.requested):
        yield _warning("subject.changed", message, _CONFIRM)


def _changed(subject: ReadName, rules: SubjectRules, requested: Subject | None) -> Iterator[str]:
    """Yield a message for each attribute that differs from the request or, failing that, from the partner's rules."""
    for attribute in dict.fromkeys((*rules.order, *ATTRIBUTES)):
        found = [a.value for a in subject.attributes if a.name == attribute]
        wanted = [value for name, value in requested.attributes if name == attribute] if requested else found
        compared = attribute != "CN" or not rules.common_name_is_login  # another login has its own error
        fixed = rules.fixed.get(attribute, "")
        if compared and sorted(found) != sorted(wanted):
            yield f"{attribute} {_said(found)} in the certificate, and {_said(wanted)} in the request"
        elif attribute in rules.required and not any(found):
            yield f"{attribute} is in the partner's rules, but not in the certificate: the CA left it out"
        elif fixed and any(found) and found[0] != fixed:
            yield f"{attribute} {_said(found)} in the certificate, and the partner's rules say {shown(fixed)}"


def _said(values: Sequence[str]) -> str:
    return f"is {shown(', '.join(values))}" if values else "is not"


def _times(leaf: x509.Certificate, now: datetime) -> Iterator[Finding]:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end <= start:
        yield _error("times", f"it ends ({end:%Y-%m-%d}) before it begins ({start:%Y-%m-%d})", _REISSUE)
        return
    if end <= now:
        yield _error("expired", f"it expired on {end:%Y-%m-%d %H:%M} UTC", "import the newer one, or request one")
    if start > now + CLOCK_SKEW:
        message = f"it is not valid before {start:%Y-%m-%d %H:%M} UTC; the time here is {now:%Y-%m-%d %H:%M} UTC"
        yield _error("not-yet-valid", message, "wait until then, and check this machine's clock")
    elif start > now:
        yield _note("clock", f"it begins {(start - now).seconds} s from now", "check this machine's clock")
    if end - start < _SHORT:
        yield _note("short", f"its lifetime is only {_days(end - start)}", _LIFETIME)
    elif end - start > _LONG:
        yield _note("long", f"its lifetime is {_days(end - start)}", _LIFETIME)


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
    yield from _usage(extensions)
    for found in extensions:
        if found.critical and isinstance(found.value, x509.UnrecognizedExtension):
            message = f"it has an unknown critical extension: {found.oid.dotted_string}"
            yield _error("critical", message, "ask the partner for its purpose")


def _usage(extensions: x509.Extensions) -> Iterator[Finding]:
    usage = fields.extension(extensions, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        message = "its key usage lacks digitalSignature, which TLS 1.3 requires (RFC 8446, 4.4.2.2)"
        yield _error("key-usage", message, _REISSUE)
    types = fields.netscape_types(extensions)
    if types is not None and "client" not in types:
        found = f"its Netscape certificate type ({', '.join(types) or 'empty'})"
        yield _error("purpose", f"{found} lacks client: OpenSSL servers refuse it", _REISSUE)
    purposes = fields.extension(extensions, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH in purposes:
        return
    names = ", ".join(map(fields.oid_name, purposes))
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes:
        message = f"its extended key usage ({names}) does not name clientAuth: OpenSSL servers refuse it"
        yield _warning("purpose", message, _REISSUE)
    else:
        message = f"its extended key usage is {names}, without clientAuth: servers refuse it from a client"
        yield _error("purpose", message, _REISSUE)


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days >= 1 else f"{span.seconds // 60} minutes"


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding.error(f"certificate.{code}", message, hint)


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding.warning(f"certificate.{code}", message, hint)


def _note(code: str, message: str, hint: str) -> Finding:
    return Finding.note(f"certificate.{code}", message, hint)
