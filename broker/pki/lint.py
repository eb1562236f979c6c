"""Check subjects and signing requests against a partner's rules before they are sent."""

from collections.abc import Iterator

from broker.copies import replace
from broker.model.finding import Finding, Severity, worst_first
from broker.model.subject import KeyRules, Subject, SubjectRules
from broker.pki.certificate_fields import SMALLEST_RSA, digest_faults, rsa_faults
from broker.pki.csr import ParsedCsr
from broker.pki.names import listed, shown
from broker.pki.subject_values import code_of, login_mismatch, unknown_attributes, value_faults

_OLD_STRINGS = ("TeletexString", "BMPString", "UniversalString")


def lint_subject(subject: Subject, rules: SubjectRules, login: str) -> tuple[Finding, ...]:
    """Return all faults of `subject` under a partner's `rules`, errors first.

    `login` is the account's; "" leaves the common name unchecked.
    """
    return worst_first(_subject_faults(subject, rules, login))


def lint_csr(parsed: ParsedCsr, rules: SubjectRules, key_rules: KeyRules, login: str) -> tuple[Finding, ...]:
    """Return all faults of a request, its subject included, errors first."""
    found = list(_subject_faults(parsed.name.subject, rules, login))
    order = [a.name for a in parsed.name.attributes if a.name in rules.order]
    if order == sorted(order, key=rules.order.index, reverse=True):
        reversed_ = Finding.note("subject.reversed", "the attributes are in reverse order, as keytool writes them")
        found = [reversed_ if f.code == "subject.order" else f for f in found]
    of_request = (*_key(parsed, key_rules), *_signature(parsed, key_rules), *_contents(parsed))
    return worst_first([*found, *_encoding(parsed), *(replace(f, code=f"csr.{f.code}") for f in of_request)])


def _subject_faults(subject: Subject, rules: SubjectRules, login: str) -> Iterator[Finding]:
    yield from _presence(subject, rules)
    for name, value in subject.attributes:
        yield from value_faults(name, value)
        wanted = rules.fixed.get(name, value)
        if value not in ("", wanted):
            message = f"{name} is {shown(value)}, and the partner wants {shown(wanted)}{_near(value, wanted)}"
            yield Finding.error(f"subject.{code_of(name)}.wrong", message, f"set {name} to {shown(wanted)}")
    name = subject.get("CN") if rules.common_name_is_login else ""
    if name and (message := login_mismatch(name, login)):
        yield Finding.error("subject.cn.login", message, f"set CN to {shown(login)}, or correct the account's login")
    if len(name.split()) > 1:
        message = f"CN is {shown(name)}: no login has a blank"
        yield Finding.error("subject.cn.blank", message, f"set CN to {shown(''.join(name.split()))}, if that is it")
    if name and not name.startswith(rules.login_prefix):
        message = f"CN is {shown(name)}, and this partner's logins usually begin with '{rules.login_prefix}'"
        yield Finding.warning("subject.cn.prefix", message, "compare it with the login that the partner gave you")
    names = list(dict.fromkeys(name for name, _ in subject.attributes if name in rules.order))
    order = sorted(names, key=rules.order.index)
    if names != order:
        message = f"the attributes are in the order {', '.join(names)}, not {', '.join(order)}"
        yield Finding.warning("subject.order", message, "make the request in the partner's order")


def _presence(subject: Subject, rules: SubjectRules) -> Iterator[Finding]:
    names = [name for name, _ in subject.attributes]
    for name in rules.order:
        if name in rules.required and name not in names:
            hint = f"set {name} to '{rules.fixed[name]}'" if name in rules.fixed else f"set {name}"
            message = f"{name} is missing, and the partner requires it"
            yield Finding.error(f"subject.{code_of(name)}.missing", message, hint)
    for name, value in dict(subject.attributes).items():
        if name in rules.forbidden:
            message = f"{name} is there ({shown(value)}), and the partner forbids it"
            yield Finding.error(f"subject.{code_of(name)}.forbidden", message, f"leave {name} out")
        if names.count(name) > 1:
            values = listed(shown(v) for n, v in subject.attributes if n == name)
            severity = Severity.ERROR if name in rules.required or name in rules.fixed else Severity.WARNING
            message = f"{name} is there {names.count(name)} times: {values}"
            yield Finding(f"subject.{code_of(name)}.duplicate", severity, message, f"keep one {name}")


def _near(value: str, wanted: str) -> str:
    """Return the difference that people overlook, or ""."""
    if value.casefold() == wanted.casefold():
        return ": upper and lower case count"
    if value == wanted.removesuffix("s"):
        return ": the final s is missing, as in the guide's keytool example"
    return ": the blanks differ" if value.split() == wanted.split() else ""


def _encoding(parsed: ParsedCsr) -> Iterator[Finding]:
    for message, name in unknown_attributes(parsed.name):
        yield Finding.warning("subject.unknown", message, f"leave {name} out")
    if parsed.name.multi_valued:
        message = f"{listed(parsed.name.multi_valued)} share one part of the name (written with '+')"
        yield Finding.error("subject.multi-valued", message, "give each attribute its own part of the name")
    for attribute in parsed.name.attributes:
        found, hint = attribute.string_type, "make the request with openssl's -utf8, or let the broker make it"
        standard = {"C": "PrintableString", "emailAddress": "IA5String"}.get(attribute.name, found)
        if found in _OLD_STRINGS or found != standard:
            fault = "which CAs misread or refuse" if found in _OLD_STRINGS else f"and the standard wants {standard}"
            message = f"{attribute.name} is encoded as {found}, {fault}"
            yield Finding.warning(f"subject.{code_of(attribute.name)}.string-type", message, hint)
    if {a.string_type for a in parsed.name.attributes if a.name not in ("C", "emailAddress")} == {"PrintableString"}:
        message = "the values are PrintableString, as keytool writes them; openssl writes UTF-8"
        yield Finding.note("subject.printable", message)


def _key(parsed: ParsedCsr, rules: KeyRules) -> Iterator[Finding]:
    yield from rsa_faults(parsed.key)
    message = f"the key has {parsed.key.bits} bits, and the partner wants {rules.bits}"
    if parsed.key.bits > rules.bits:
        yield Finding.warning("key.larger", message, f"ask the partner, or make a key of {rules.bits} bits")
    elif SMALLEST_RSA <= parsed.key.bits < rules.bits:  # below, `rsa_faults` has reported it
        yield Finding.error("key.smaller", message, f"make a key of {rules.bits} bits")


def _signature(parsed: ParsedCsr, rules: KeyRules) -> Iterator[Finding]:
    hint = f"make the request again with -{rules.digest}"
    if not parsed.signature_valid:
        message = "the request's own signature does not fit its key: it was edited, or made with another key"
        yield Finding.error("signature.invalid", message, "make the request again; never edit one")
    weak = list(digest_faults("it", parsed.digest, hint))
    yield from weak
    if not weak and parsed.digest != rules.digest:
        digest = parsed.digest or "an unusual algorithm"
        message = f"the request is signed with {digest}, and the partner wants {rules.digest}"
        yield Finding.warning("signature.digest", message, hint)
    if parsed.pss:
        message = "the request is signed with RSASSA-PSS, which older CAs cannot read"
        yield Finding.warning("signature.pss", message, "sign it with RSA PKCS#1 v1.5, openssl's default")


def _contents(parsed: ParsedCsr) -> Iterator[Finding]:
    if parsed.holds_private_key:
        message = "the file holds a private key beside the request: sending it gives the key away"
        hint = "send a file with the request alone; if it was sent, make a new key"
        yield Finding.error("private-key", message, hint)
    if parsed.challenge_password:
        message = "the request holds a challengePassword, readable to everybody who sees the request"
        yield Finding.warning("challenge-password", message, "leave it empty; change it if it is used elsewhere")
    if parsed.asks_to_be_ca:
        message = "the request asks for a CA certificate (basicConstraints CA:TRUE)"
        yield Finding.error("ca", message, "make it without that extension")
    if parsed.extensions:
        message = f"the request asks for extensions, which the CA may ignore: {listed(parsed.extensions)}"
        yield Finding.note("extensions", message)
    if parsed.header == "NEW CERTIFICATE REQUEST":
        message = "the PEM header says NEW CERTIFICATE REQUEST, as keytool writes it: some portals refuse it"
        yield Finding.note("header", message, "convert it with: openssl req -in FILE -out request.csr")
