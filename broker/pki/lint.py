"""What a partner would send back, found before it is sent: subjects and signing requests held to the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.model.finding import Finding, Severity
from broker.model.subject import KeyRules, Subject, SubjectRules
from broker.pki.csr import ParsedCsr
from broker.pki.names import shown
from broker.pki.strength import digest_faults, rsa_faults
from broker.pki.subject_values import code_of, value_faults

__all__ = ["lint_csr", "lint_subject"]

_OLD_STRINGS = ("TeletexString", "BMPString", "UniversalString")


def lint_subject(subject: Subject, rules: SubjectRules, login: str) -> tuple[Finding, ...]:
    """Return all that is wrong with `subject` under a partner's `rules`, errors first.

    `login` is the account's; "" leaves the common name unchecked.
    """
    found = [
        *_presence(subject, rules),
        *(fault for name, value in subject.attributes for fault in value_faults(name, value)),
        *_fixed(subject, rules),
        *_common_name(subject, rules, login),
        *_order(subject, rules),
    ]
    return _sorted(found)


def lint_csr(parsed: ParsedCsr, rules: SubjectRules, key_rules: KeyRules, login: str) -> tuple[Finding, ...]:
    """Return all that is wrong with a request, its subject included, errors first."""
    subject = list(lint_subject(parsed.subject, rules, login))
    if any(f.code == "subject.order" for f in subject) and _reversed(parsed, rules):
        subject = [f for f in subject if f.code != "subject.order"]
        subject.append(
            Finding.note("subject.reversed", "the attributes stand in reverse order, as keytool writes them")
        )
    found = [*subject, *_encoding(parsed), *_key(parsed, key_rules), *_signature(parsed, key_rules), *_wishes(parsed)]
    return _sorted(found)


def _presence(subject: Subject, rules: SubjectRules) -> Iterator[Finding]:
    names = [name for name, _ in subject.attributes]
    for name in rules.order:
        if name in rules.required and name not in names:
            hint = f"set {name} to '{rules.fixed[name]}'" if name in rules.fixed else f"set {name}"
            yield Finding.error(
                f"subject.{code_of(name)}.missing", f"{name} is missing, and the partner requires it", hint
            )
    for name, value in dict(subject.attributes).items():
        if name in rules.forbidden:
            message = f"{name} is there ({shown(value)}), and the partner forbids it"
            yield Finding.error(f"subject.{code_of(name)}.forbidden", message, f"leave {name} out")
        if names.count(name) > 1:
            values = ", ".join(shown(v) for n, v in subject.attributes if n == name)
            severity = Severity.ERROR if name in rules.required or name in rules.fixed else Severity.WARNING
            message = f"{name} is there {names.count(name)} times: {values}"
            yield Finding(f"subject.{code_of(name)}.duplicate", severity, message, f"keep one {name}")


def _fixed(subject: Subject, rules: SubjectRules) -> Iterator[Finding]:
    for name, wanted in rules.fixed.items():
        for attribute, value in subject.attributes:
            if attribute == name and value and value != wanted:
                message = f"{name} is {shown(value)}, and the partner wants {shown(wanted)}{_near(value, wanted)}"
                yield Finding.error(f"subject.{code_of(name)}.wrong", message, f"set {name} to {shown(wanted)}")


def _near(value: str, wanted: str) -> str:
    """Say what people overlook."""
    if value.casefold() == wanted.casefold():
        return ": upper and lower case count"
    if value == wanted.removesuffix("s"):
        return ": the final s is missing, as in the guide's keytool example"
    if value.split() == wanted.split():
        return ": the blanks differ"
    return ""


def _common_name(subject: Subject, rules: SubjectRules, login: str) -> Iterator[Finding]:
    name = subject.get("CN")
    if not rules.common_name_is_login or not name:
        return
    if login and name != login:
        hint = ": upper and lower case count" if name.casefold() == login.casefold() else ""
        message = f"CN is {shown(name)}, and the account's login is {shown(login)}{hint}"
        yield Finding.error("subject.cn.login", message, f"set CN to {shown(login)}, or correct the account's login")
    if rules.login_prefix and not name.startswith(rules.login_prefix):
        yield Finding.warning(
            "subject.cn.prefix",
            f"CN is {shown(name)}, and this partner's logins usually begin with '{rules.login_prefix}'",
            "compare it with the login that the partner gave you",
        )


def _order(subject: Subject, rules: SubjectRules) -> Iterator[Finding]:
    names = list(dict.fromkeys(name for name, _ in subject.attributes if name in rules.order))
    wanted = sorted(names, key=rules.order.index)
    if names != wanted:
        message = f"the attributes stand in the order {', '.join(names)}, not {', '.join(wanted)}"
        yield Finding.warning("subject.order", message, "make the request in the partner's order")


def _reversed(parsed: ParsedCsr, rules: SubjectRules) -> bool:
    names = [name for name in parsed.order if name in rules.order]
    return names == sorted(names, key=rules.order.index, reverse=True)


def _encoding(parsed: ParsedCsr) -> Iterator[Finding]:
    for attribute in parsed.name.unknown:
        message = f"the subject holds {attribute.name} ({shown(attribute.value)}), which no rule mentions"
        yield Finding.warning("subject.unknown", message, f"leave {attribute.name} out")
    if parsed.name.multi_valued:
        message = f"{' and '.join(parsed.name.multi_valued)} share one part of the name (written with '+')"
        yield Finding.error("subject.multi-valued", message, "give each attribute a part of its own")
    for attribute in parsed.name.attributes:
        if attribute.string_type in _OLD_STRINGS:
            message = f"{attribute.name} is encoded as {attribute.string_type}, which CAs misread or refuse"
            hint = "make the request with openssl's -utf8, or with: broker csr new"
            yield Finding.warning(f"subject.{code_of(attribute.name)}.string-type", message, hint)
    yield from _fixed_string_types(parsed)
    if {a.string_type for a in parsed.name.attributes if a.name not in ("C", "emailAddress")} == {"PrintableString"}:
        yield Finding.note(
            "subject.printable", "the values are PrintableString, as keytool writes them; openssl writes UTF-8"
        )


def _fixed_string_types(parsed: ParsedCsr) -> Iterator[Finding]:
    for attribute in parsed.name.attributes:
        wanted = {"C": "PrintableString", "emailAddress": "IA5String"}.get(attribute.name, attribute.string_type)
        if attribute.string_type not in (wanted, *_OLD_STRINGS):
            message = f"{attribute.name} is encoded as {attribute.string_type}, and the standard wants {wanted}"
            yield Finding.warning(
                f"subject.{code_of(attribute.name)}.string-type", message, "make the request with openssl"
            )


def _key(parsed: ParsedCsr, rules: KeyRules) -> Iterator[Finding]:
    yield from rsa_faults("csr", parsed.key)
    if parsed.key.algorithm != "rsa" or parsed.key.bits == rules.bits:
        return
    message = f"the key has {parsed.key.bits} bits, and the partner wants {rules.bits}"
    if parsed.key.bits > rules.bits:
        yield Finding.warning("csr.key.larger", message, f"ask the partner, or make a key of {rules.bits} bits")
    elif parsed.key.bits >= 2048:  # noqa: PLR2004 - below, `rsa_faults` has said it
        yield Finding.error("csr.key.smaller", message, f"make a key of {rules.bits} bits")


def _signature(parsed: ParsedCsr, rules: KeyRules) -> Iterator[Finding]:
    hint = f"make the request again with -{rules.digest}"
    if not parsed.signature_valid:
        yield Finding.error(
            "csr.signature.invalid",
            "the request's own signature does not fit its key: it was edited, or made with another key",
            "make the request again; never edit one",
        )
    yield from digest_faults("csr", parsed.digest, hint)
    if not any(digest_faults("csr", parsed.digest, hint)) and parsed.digest != rules.digest:
        digest = parsed.digest or "an unusual algorithm"
        message = f"the request is signed with {digest}, and the partner wants {rules.digest}"
        yield Finding.warning("csr.signature.digest", message, hint)
    if parsed.pss:
        message = "the request is signed with RSASSA-PSS, which older CAs cannot read"
        yield Finding.warning("csr.signature.pss", message, "sign it with RSA PKCS#1 v1.5, openssl's default")


def _wishes(parsed: ParsedCsr) -> Iterator[Finding]:
    if parsed.holds_private_key:
        message = "the file holds a private key beside the request: who sends it gives the key away"
        yield Finding.error(
            "csr.private-key", message, "send a file with the request alone; if it was sent, make a new key"
        )
    if parsed.challenge_password:
        message = "the request holds a challengePassword, readable to everybody who sees the request"
        yield Finding.warning("csr.challenge-password", message, "leave it empty; change it if it is used elsewhere")
    if parsed.asks_to_be_ca:
        message = "the request asks for a CA certificate (basicConstraints CA:TRUE)"
        yield Finding.error("csr.ca", message, "make it without that extension")
    if parsed.extensions:
        message = f"the request asks for extensions, which the CA may ignore: {', '.join(parsed.extensions)}"
        yield Finding.note("csr.extensions", message)
    if parsed.header == "NEW CERTIFICATE REQUEST":
        message = "the PEM header says NEW CERTIFICATE REQUEST, as keytool writes it: some portals refuse it"
        yield Finding.note("csr.header", message, "convert it with: openssl req -in FILE -out request.csr")


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    weights = list(Severity)
    return tuple(sorted(dict.fromkeys(found), key=lambda f: weights.index(f.severity)))
