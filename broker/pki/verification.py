"""Is this the certificate that we asked for, from the CA that we know, fit to be shown to the partner's servers?

A reply is untrusted: what is wrong is said in words of its own for each fault, and nothing is decided by its sender.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding, has_errors
from broker.model.subject import ATTRIBUTES, Subject, SubjectRules
from broker.pki.certificate_fields import (
    digest_of,
    extension,
    extensions_of,
    netscape_types,
    oid_name,
    spki_of,
    subject_of,
)
from broker.pki.certificates import load
from broker.pki.chain_policy import issuing_faults, verifier_faults
from broker.pki.names import ReadName, shown
from broker.pki.strength import digest_faults, public_key_facts, rsa_faults

__all__ = ["CLOCK_SKEW", "verify_certificate"]

CLOCK_SKEW: Final = timedelta(minutes=5)
_SHORT: Final = timedelta(days=30)
_LONG: Final = timedelta(days=3 * 366)
_AGAIN: Final = "ask the partner to issue it again, from the request as it was sent"


def verify_certificate(
    certificate: Certificate,
    *,
    expected_spki: Spki | None,
    rules: SubjectRules,
    login: str,
    issuing: CaSet | None,
    now: datetime,
    requested: Subject | None = None,
) -> tuple[Finding, ...]:
    """Return all that speaks against `certificate` (its `pem`: leaf, then intermediates) as the account's next one.

    `expected_spki` and `requested` are key and subject of the open request, None if there is none to compare with.
    `issuing` are the issuing
    CAs pinned for the account, or accepted by a person just now; None is a finding, since nobody vouches for the CA
    then. `now` is in UTC. Raises `InputError` if `pem` cannot be read.
    """
    leaf, *others = load(certificate.pem)
    found = [
        *_key(leaf, expected_spki),
        *_subject(leaf, rules, login),
        *_changed(subject_of(leaf), rules, requested),
        *_times(leaf, now),
        *_strength(leaf),
        *_purpose(leaf),
        *issuing_faults(leaf, others, issuing, now),
    ]
    if issuing is not None and not has_errors(found):
        found += verifier_faults(leaf, others, issuing, now)
    return tuple(found)


def _key(leaf: x509.Certificate, expected: Spki | None) -> Iterator[Finding]:
    found = spki_of(leaf)
    if expected is not None and found != expected:
        message = f"the certificate is for another key (SPKI {found[:16]}…) than the request ({expected[:16]}…)"
        yield _error("key", message, "import the certificate that answers the open request")


def _subject(leaf: x509.Certificate, rules: SubjectRules, login: str) -> Iterator[Finding]:
    subject = subject_of(leaf)
    name = subject.get("CN")
    if not subject.attributes:
        yield _error("subject", "the certificate has no subject", _AGAIN)
    elif rules.common_name_is_login and login and name != login:
        message = f"CN is {shown(name)}, and the account's login is {shown(login)}"
        yield _error("cn", message, "check that the certificate belongs to this account; if so, ask for it again")
    yield from _doubtful(subject)


def _changed(subject: ReadName, rules: SubjectRules, requested: Subject | None) -> Iterator[Finding]:
    """Yield each attribute that is not as it was requested, else each that is not as the partner's rules say."""
    for attribute in dict.fromkeys((*rules.order, *ATTRIBUTES)):
        found = [a.value for a in subject.attributes if a.name == attribute]
        wanted = [value for name, value in requested.attributes if name == attribute] if requested else found
        compared = attribute != "CN" or not rules.common_name_is_login  # the login is an error of its own
        fixed = rules.fixed.get(attribute, "")
        if compared and sorted(found) != sorted(wanted):
            message = f"{attribute} {_said(found)} in the certificate, and {_said(wanted)} in the request"
        elif attribute in rules.required and not any(found):
            message = f"{attribute} is in the partner's rules, but not in the certificate: the CA left it out"
        elif fixed and any(found) and found[0] != fixed:
            message = f"{attribute} {_said(found)} in the certificate, and the partner's rules say {shown(fixed)}"
        else:
            continue
        yield _warning("subject.changed", message, "ask the partner whether that is meant")


def _said(values: Sequence[str]) -> str:
    return f"is {shown(', '.join(values))}" if values else "is not"


def _doubtful(subject: ReadName) -> Iterator[Finding]:
    """Yield what makes it depend on the reader whom the certificate names."""
    names = [a.value for a in subject.attributes if a.name == "CN"]
    if len(names) > 1:
        message = f"CN is there {len(names)} times ({', '.join(map(shown, names))}): servers differ in which one counts"
        yield _error("cn.duplicate", message, _AGAIN)
    if "CN" in subject.multi_valued:
        message = f"CN shares its part of the name with another attribute (written with '+'): {shown(str(subject))}"
        yield _error("cn.multi-valued", message, _AGAIN)
    for attribute in subject.unknown:
        message = f"the subject holds {attribute.name} ({shown(attribute.value)}), which no rule mentions"
        yield _warning("subject.unknown", message, "ask the partner whether that is meant")


def _times(leaf: x509.Certificate, now: datetime) -> Iterator[Finding]:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end <= start:
        yield _error("times", f"it ends ({end:%Y-%m-%d}) before it begins ({start:%Y-%m-%d})", _AGAIN)
        return
    if end <= now:
        yield _error("expired", f"it expired on {end:%Y-%m-%d %H:%M} UTC", "import the newer one, or request one")
    if start > now + CLOCK_SKEW:
        message = f"it is not valid before {start:%Y-%m-%d %H:%M} UTC; the time here is {now:%Y-%m-%d %H:%M} UTC"
        yield _error("not-yet-valid", message, "wait until then, and check this machine's clock")
    elif start > now:
        message = f"it begins {(start - now).seconds} s from now: clocks differ by a little"
        yield _note("clock", message, "check this machine's clock")
    if end - start < _SHORT:
        yield _note("short", f"it lives for {_days(end - start)} only", "check that this is what the partner means")
    elif end - start > _LONG:
        yield _note("long", f"it lives for {_days(end - start)}", "check that this is what the partner means")


def _strength(leaf: x509.Certificate) -> Iterator[Finding]:
    yield from rsa_faults("certificate", public_key_facts(leaf.public_key))
    yield from digest_faults("certificate", digest_of(leaf), _AGAIN)


def _purpose(leaf: x509.Certificate) -> Iterator[Finding]:
    if leaf.version is not x509.Version.v3:
        message = "it is an X.509 version 1 certificate, without any statement of what it is for"
        yield _error("version", message, _AGAIN)
        return
    extensions = extensions_of(leaf)
    if extensions is None:
        yield _error("extensions", "its extensions cannot be read: one is broken, or there twice", _AGAIN)
        return
    constraints = extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        message = "it is a CA certificate (CA:TRUE): its key could sign others"
        yield _error("is-ca", message, "import the leaf; if this is it, ask for one that is no CA")
    yield from _usage(extensions)
    for found in extensions:
        if found.critical and isinstance(found.value, x509.UnrecognizedExtension):
            message = f"it has a critical extension that nobody here knows: {found.oid.dotted_string}"
            yield _error("critical", message, "ask the partner what it is for")


def _usage(extensions: x509.Extensions) -> Iterator[Finding]:
    usage = extension(extensions, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        message = "its key usage leaves out digitalSignature, which TLS 1.3 requires (RFC 8446, 4.4.2.2)"
        yield _error("key-usage", message, _AGAIN)
    types = netscape_types(extensions)
    if types is not None and "client" not in types:
        message = (
            f"its Netscape certificate type ({', '.join(types) or 'empty'}) lacks client: OpenSSL servers refuse it"
        )
        yield _error("purpose", message, _AGAIN)
    purposes = extension(extensions, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH in purposes:
        return
    names = ", ".join(oid_name(oid) for oid in purposes)
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes:
        message = f"its extended key usage ({names}) does not name clientAuth: OpenSSL servers refuse it"
        yield _warning("purpose", message, _AGAIN)
    else:
        message = f"its extended key usage is {names}, without clientAuth: servers refuse it from a client"
        yield _error("purpose", message, _AGAIN)


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days >= 1 else f"{span.seconds // 60} minutes"


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding.error(f"certificate.{code}", message, hint)


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding.warning(f"certificate.{code}", message, hint)


def _note(code: str, message: str, hint: str) -> Finding:
    return Finding.note(f"certificate.{code}", message, hint)
