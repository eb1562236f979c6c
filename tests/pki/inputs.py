"""Certificates of every kind that a reply may hold, the findings that each gives, and what an OpenSSL server does.

`test_openssl_server` makes each of them and asks a real server; `docs/generate.py` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from broker.model.finding import Finding
from broker.model.subject import Subject
from broker.pki import certificates
from broker.pki.certificate_fields import spki_of
from broker.pki.der import children, only
from broker.pki.lint import lint_subject
from broker.pki.verification import Expected, verify_certificate
from tests.support import pki
from tests.support.pki import LOGIN, NOW, Ca, ExtensionOf, a_ca, a_key, a_leaf

Chain = tuple[x509.Certificate, ...]
CLIENT, SERVER, ANY = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)
DAY: Final = timedelta(days=1)
PSS_MAXIMUM: Final = 222  # octets of salt that fit RSA 2048 with SHA-256: openssl's default


@dataclass(frozen=True)
class Input:
    """A chain as a partner sends it, with the root that is pinned.

    `findings` are "severity code", errors first. `accepted` is the answer of a server at security level `level` that
    trusts only the root; None if no handshake can be tried: another key, or the client cannot load it.
    """

    chain: Callable[[], Chain]
    findings: str = ""
    accepted: bool | None = True
    level: int = 1
    trusted: Callable[[], Ca] | None = None  # in place of the root


@cache
def root() -> Ca:
    """The pinned root."""
    return a_ca("Root")


def rsa_of(ca: Ca) -> rsa.RSAPrivateKey:
    assert isinstance(ca.key, rsa.RSAPrivateKey)
    return ca.key


def leaf(**options: object) -> Callable[[], Chain]:
    """A leaf that is made like this under the root; options that are functions are called."""
    return lambda: (a_leaf(root(), **_called(options)),)  # type: ignore[arg-type]


def by(**options: object) -> Callable[[], Chain]:
    """An ordinary leaf under an intermediate that is made like this."""

    def made() -> Chain:
        ca = a_ca("Middle", **{"issuer": root(), "key": a_key("ca Middle"), **_called(options)})  # type: ignore[arg-type]
        return a_leaf(ca), ca.certificate

    return made


def _called(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value() if callable(value) else value for name, value in options.items()}


def under(made: Callable[[], Ca]) -> Mapping[str, Callable[[], object]]:
    """An ordinary leaf under this root, which is pinned."""
    return {"chain": lambda: (a_leaf(cache(made)()),), "trusted": cache(made)}


def changed(change: Callable[[list[bytes]], list[bytes]], **options: object) -> Callable[[], Chain]:
    """A leaf under the root with the fields of its TBSCertificate changed."""
    return lambda: (pki.altered(leaf(**options)()[0], rsa_of(root()), change),)


def serial(content: bytes) -> Callable[[], Chain]:
    return changed(lambda fields: [fields[0], pki.tlv(2, content), *fields[2:]])


def exponent(value: int) -> Callable[[list[bytes]], list[bytes]]:
    number = b"\2\3" + value.to_bytes(3, "big")
    return lambda fields: [*fields[:6], fields[6].replace(b"\2\3\1\0\1", number), *fields[7:]]


def twice(*octets: int) -> Callable[[], Chain]:
    """A leaf with the extension of this object identifier there twice."""

    def repeated(fields: list[bytes]) -> list[bytes]:
        listed = [e.raw for e in children(only(only(fields[-1]).content))]
        again = [one for one in listed if one.find(bytes((6, len(octets), *octets))) > 0]
        return [*fields[:-1], pki.tlv(0xA3, pki.tlv(0x30, *listed, *again))]

    return changed(repeated)


def resigned(digest: hashes.SHA1 | hashes.MD5) -> Callable[[], Chain]:
    return lambda: (pki.resigned(a_leaf(root()), rsa_of(root()), digest),)


def forgeable(digest: hashes.SHA1 | hashes.MD5) -> Callable[[], Chain]:
    """An ordinary leaf under an intermediate that the root signed with this digest."""

    def made() -> Chain:
        found, middle = by()()
        return found, pki.resigned(middle, rsa_of(root()), digest)

    return made


def purposes(*oids: ObjectIdentifier) -> list[ExtensionOf]:
    return [(x509.ExtendedKeyUsage(oids), False)]


def raw(oid: str, content: bytes, *, critical: bool = False) -> ExtensionOf:
    return x509.UnrecognizedExtension(ObjectIdentifier(oid), content), critical


def names(permitted: x509.GeneralName | None, excluded: x509.GeneralName | None = None) -> list[ExtensionOf]:
    constraints = x509.NameConstraints([permitted] if permitted else None, [excluded] if excluded else None)
    return [(constraints, True)]


def bare(bits: int) -> Ca:
    """A root that is a CA only by nsCertType."""
    return a_ca("Bare", key=a_key("ca Middle"), basic=None, cert_sign=None, extra=[pki.netscape_type(bits)])


def twins(*, old_first: bool) -> Callable[[], Chain]:
    """One CA twice, renewed under the same name and key; the old certificate has expired."""

    def made() -> Chain:
        old, new = (
            a_ca("Twin", issuer=root(), not_before=NOW - 900 * DAY, not_after=end).certificate
            for end in (NOW - DAY, NOW + 900 * DAY)
        )
        return a_leaf(Ca(new, a_key("ca Twin"))), *((old, new) if old_first else (new, old))

    return made


def rolled_over(*, named: bool) -> Callable[[], Chain]:
    """An intermediate that may have no CA below it, and its new key, which the old one signed: self-issued.

    Only if the keys are `named` does OpenSSL see that it is not self-signed.
    """

    def made() -> Chain:
        strict = x509.BasicConstraints(ca=True, path_length=0)
        first, second = ([(x509.SubjectKeyIdentifier(key), False)] if named else [] for key in (b"first", b"second"))
        signer = [(x509.AuthorityKeyIdentifier(b"first", None, None), False)] if named else []
        old = a_ca("Roll", issuer=root(), basic=strict, extra=first)
        new = a_ca("Roll", issuer=old, key=a_key("ca Roll 2"), basic=strict, extra=[*second, *signer])
        return a_leaf(new), new.certificate, old.certificate

    return made


def too_long() -> Chain:
    strict = a_ca("Strict", issuer=root(), basic=x509.BasicConstraints(ca=True, path_length=0))
    below = a_ca("Below", issuer=strict)
    return a_leaf(below), below.certificate, strict.certificate


def by_a_leaf() -> Chain:
    """The classic: a client of the same CA issues a certificate itself."""
    middleman = a_leaf(root(), a_key("other"), "Somebody")
    return a_leaf(Ca(middleman, a_key("other"))), middleman


def other_key_identifier() -> Chain:
    strange = x509.AuthorityKeyIdentifier(b"another key", None, None)
    ca = a_ca("Middle", issuer=root(), key=a_key("ca Middle"), extra=[(x509.SubjectKeyIdentifier(b"this key"), False)])
    return a_leaf(ca, extra=[(strange, False)]), ca.certificate


def version_1(fields: list[bytes]) -> list[bytes]:
    return fields[1:-1]


def nameless() -> Ca:
    made = a_ca("", key=a_key("ca Middle"))
    empty = pki.tlv(0x30)

    def unnamed(fields: list[bytes]) -> list[bytes]:
        return [*fields[:3], empty, fields[4], empty, *fields[6:]]

    return Ca(pki.altered(made.certificate, rsa_of(made), unnamed), made.key)


def public() -> Ca:
    made, name = a_ca("R99"), pki.a_name(Subject((("C", "US"), ("O", "Let's Encrypt"), ("CN", "R99"))))

    def named(parts: list[bytes]) -> list[bytes]:
        return [*parts[:3], name.public_bytes(), parts[4], name.public_bytes(), *parts[6:]]

    return Ca(pki.altered(made.certificate, rsa_of(made), named), made.key)


def version_1_root() -> Ca:
    made = a_ca("Old root", key=a_key("ca Middle"))
    return Ca(pki.altered(made.certificate, rsa_of(made), version_1), made.key)


INPUTS: Final[Mapping[str, Input]] = {
    "ordinary": Input(by()),
    "leaf without usages": Input(leaf(eku=None, digital_signature=None)),
    "leaf, CA:TRUE": Input(leaf(is_ca=True), "error is-ca"),
    "leaf, CA:FALSE with a pathlen": Input(
        leaf(basic=False, extra=[raw("2.5.29.19", bytes.fromhex("3003020100"))]),
        "warning extensions, warning path-length",
    ),
    "leaf, version 1": Input(changed(version_1), "error version"),
    "leaf, version 1 with extensions, CA:TRUE": Input(
        changed(lambda fields: fields[1:], is_ca=True), "error version, error is-ca"
    ),
    "leaf, nsCertType client and server": Input(leaf(extra=[pki.netscape_type(0xC0)])),
    "leaf, nsCertType server": Input(leaf(extra=[pki.netscape_type(0x40)]), "error purpose", accepted=False),
    "leaf, nsCertType email": Input(leaf(extra=[pki.netscape_type(0x20)]), "error purpose", accepted=False),
    "leaf, EKU server": Input(leaf(eku=[SERVER]), "error purpose", accepted=False),
    "leaf, EKU any": Input(leaf(eku=[ANY]), "warning purpose", accepted=False),
    "leaf, EKU any and client": Input(leaf(eku=[ANY, CLIENT])),
    "leaf, no digitalSignature": Input(leaf(digital_signature=False), "error key-usage", accepted=False),
    "leaf, key agreement only": Input(
        leaf(digital_signature=None, extra=[raw("2.5.29.15", bytes.fromhex("03020308"), critical=True)]),
        "warning key-usage",
    ),
    "leaf, SHA-1": Input(resigned(hashes.SHA1()), "error signature.weak", accepted=False),
    "leaf, MD5": Input(resigned(hashes.MD5()), "error signature.weak, error issuer", accepted=False),
    "leaf, PSS": Input(leaf(salt=32), "warning signature.pss"),
    "leaf, PSS with openssl's default salt": Input(leaf(salt=PSS_MAXIMUM), "warning signature.pss"),
    "leaf, RSA 1024": Input(leaf(key=lambda: a_key("small", 1024)), "error key.weak", accepted=None),
    "leaf, RSA exponent 3": Input(leaf(key=lambda: a_key("three", exponent=3)), "warning key.exponent", accepted=None),
    "leaf, RSA exponent 1": Input(changed(exponent(1)), "error key.algorithm", accepted=None),
    "leaf, RSA exponent even": Input(changed(exponent(65536)), "error key.algorithm", accepted=None),
    "leaf, EC": Input(leaf(key=pki.an_ec_key), "error key.algorithm", accepted=None),
    "leaf, Ed25519": Input(leaf(key=ed25519.Ed25519PrivateKey.generate), "error key.algorithm", accepted=None),
    "leaf, expired": Input(leaf(not_before=NOW - 90 * DAY, not_after=NOW - DAY), "error expired", accepted=False),
    "leaf, of tomorrow": Input(leaf(not_before=NOW + DAY), "error not-yet-valid", accepted=False),
    "leaf, serial 0": Input(serial(b"\0"), "warning serial"),
    "leaf, serial negative": Input(serial(b"\x80"), "warning serial"),
    "leaf, serial of 21 octets": Input(serial(b"\1" * 21), "warning serial"),
    "leaf, an extended key usage twice": Input(twice(0x55, 0x1D, 0x25), "error extensions", accepted=None),
    "leaf, broken alternative names": Input(
        leaf(extra=[raw("2.5.29.17", b"\x30\x05junk!")]), "error chain, warning extensions", accepted=None
    ),
    "leaf, unknown extension": Input(leaf(extra=[raw("1.2.3.4", b"\5\0")])),
    "leaf, unknown critical extension": Input(
        leaf(extra=[raw("1.2.3.4", b"\5\0", critical=True)]), "error critical", accepted=False
    ),
    "leaf, critical policies": Input(
        leaf(extra=[(x509.CertificatePolicies([x509.PolicyInformation(ObjectIdentifier("1.2.3"), None)]), True)]),
        "warning critical",
    ),
    "leaf, issued by another leaf": Input(by_a_leaf, "error ca.not-a-ca", accepted=False),
    "leaf, other authority key identifier": Input(other_key_identifier, "error chain", accepted=False),
    "leaf, other string types in the issuer": Input(
        leaf(issuer_name=pki.a_name("Root", "PrintableString")), "warning ca.string-types"
    ),
    "CA twice, the old one first": Input(twins(old_first=True)),
    "CA twice, the new one first": Input(twins(old_first=False)),
    "CA, a rolled-over key under pathlen 0": Input(rolled_over(named=True)),
    "CA, a rolled-over key without identifiers": Input(rolled_over(named=False), "error chain", accepted=False),
    "CA, one too many below pathlen 0": Input(too_long, "error chain", accepted=False),
    "CA, no keyCertSign": Input(by(cert_sign=False), "error ca.key-usage", accepted=False),
    "CA, no BasicConstraints": Input(by(basic=None), "error chain, warning ca.no-basic-constraints", accepted=False),
    "CA, no sign of being one": Input(
        by(basic=None, cert_sign=None), "error chain, warning ca.no-basic-constraints", accepted=False
    ),
    "CA, expired": Input(by(not_after=NOW - DAY), "error ca.expired", accepted=False),
    "CA, of tomorrow": Input(by(not_before=NOW + DAY), "error ca.not-yet-valid", accepted=False),
    "CA, EKU any": Input(by(extra=purposes(ANY)), "error ca.purpose", accepted=False),
    "CA, EKU server and any": Input(by(extra=purposes(SERVER, ANY)), "error ca.purpose", accepted=False),
    "CA, EKU server": Input(by(extra=purposes(SERVER)), "error ca.purpose", accepted=False),
    "CA, EKU server and client": Input(by(extra=purposes(SERVER, CLIENT))),
    "CA, nsCertType sslCA": Input(by(extra=[pki.netscape_type(0x04)])),
    "CA, nsCertType objCA": Input(by(extra=[pki.netscape_type(0x01)]), "warning ca.purpose"),
    "CA, critical name constraints": Input(
        by(extra=names(x509.DirectoryName(x509.Name(list(pki.a_name(pki.GOOD))[:1])))), "warning ca.critical"
    ),
    "CA, other name constraints": Input(
        by(extra=names(x509.RFC822Name("elsewhere.example"))), "error chain, warning ca.critical", accepted=False
    ),
    "CA, critical policy constraints": Input(
        by(extra=[(x509.PolicyConstraints(None, 0), True), (x509.InhibitAnyPolicy(0), True)]), "warning ca.critical"
    ),
    "CA, unknown critical extension": Input(
        by(extra=[raw("1.2.3.4", b"\5\0", critical=True)]), "error ca.critical", accepted=False
    ),
    "CA, RSA 512": Input(by(key=pki.a_tiny_key), "error ca.weak-key", accepted=False),
    "CA, RSA 1024": Input(by(key=lambda: a_key("weak ca", 1024)), "error ca.weak-key", accepted=False, level=2),
    "CA, RSA 1024, pinned": Input(
        findings="warning ca.weak-key",
        level=0,
        **under(lambda: a_ca("Weak", key=a_key("weak ca", 1024))),  # type: ignore[arg-type]
    ),
    "CA, RSA with the ROCA fault": Input(by(key=lambda: pki.a_flawed_key("roca")), "error ca.weak-key"),
    "CA, RSA of two close primes": Input(by(key=lambda: pki.a_flawed_key("close")), "error ca.weak-key"),
    "CA, RSA with a small factor": Input(by(key=lambda: pki.a_flawed_key("small")), "error ca.weak-key", level=0),
    "CA, RSA exponent 3": Input(by(key=lambda: a_key("three", exponent=3)), "warning ca.exponent", level=2),
    "CA, EC 192": Input(
        by(key=lambda: ec.generate_private_key(ec.SECP192R1())), "error ca.weak-key", accepted=False, level=2
    ),
    "CA, EC 256": Input(by(key=lambda: pki.an_ec_key("ca")), level=2),
    "CA, Ed25519": Input(by(key=ed25519.Ed25519PrivateKey.generate), "warning ca.algorithm"),
    "CA, Ed448": Input(by(key=ed448.Ed448PrivateKey.generate), "warning ca.algorithm"),
    "CA, DSA": Input(by(key=cache(lambda: dsa.generate_private_key(1024))), "error issuer"),
    "CA, SHA-1": Input(forgeable(hashes.SHA1()), "error ca.signature.weak", accepted=False),
    "CA, MD5": Input(forgeable(hashes.MD5()), "error issuer", accepted=False),
    "root of a public CA": Input(findings="warning client-auth-ends", **under(public)),  # type: ignore[arg-type]
    "root, version 1": Input(findings="warning ca.no-basic-constraints", **under(version_1_root)),  # type: ignore[arg-type]
    "root without a name": Input(findings="warning ca.no-name", **under(nameless)),  # type: ignore[arg-type]
    "root, nsCertType sslCA alone": Input(findings="warning ca.no-basic-constraints", **under(lambda: bare(0x04))),  # type: ignore[arg-type]
    "root, nsCertType objCA alone": Input(
        findings="error ca.purpose, warning ca.no-basic-constraints",
        accepted=False,
        **under(lambda: bare(0x01)),  # type: ignore[arg-type]
    ),
}


def findings_of(chain: Chain, trusted: Ca) -> tuple[Finding, ...]:
    """Return the findings about a chain, with `trusted` pinned."""
    found, ca_set = certificates.certificate_of(chain[0], chain[1:]), certificates.ca_set_of([trusted.certificate])
    expected = Expected(pki.GUIDE, pki.LOGIN, ca_set, spki_of(chain[0]), pki.GOOD)
    return verify_certificate(found, expected, NOW)


SUBJECTS: Final = (  # attribute, value: what people write into a subject
    *(("OU", "Programs Partner"), ("OU", "programs partners"), ("OU", "Programs  Partners"), ("OU", "Fleet")),
    *(("L", "<Paris"), ("L", "<your city>"), ("ST", "Some-State"), ("O", "Internet Widgits Pty Ltd"), ("L", "Unknown")),
    *(("O", "[Company]"), ("O", "{{ company }}"), ("O", "$O"), ("ST", "N/A"), ("L", "null"), ("O", "Your company")),
    *(
        ("O", "Soci?t?"),
        ("ST", "?le-de-France"),
        ("O", "SociÃ©tÃ©"),
        ("O", "Soci\ufffdt"),
        ("O", "Socie\u0301te\u0301"),
    ),
    *(("O", " x"), ("O", "a\x1bb"), ("O", "a\u202eb"), ("O", "o" * 65), ("O", "")),
    *(("C", "fr"), ("C", "FRA"), ("C", "F"), ("C", "F1"), ("C", "UK"), ("C", "ZZ")),
    *(("CN", "MZPxxxxxx"), ("CN", "MZP 128745"), ("CN", "MZP9"), ("CN", LOGIN.lower()), ("CN", "ABC1")),
    *(("emailAddress", "fleet"), ("emailAddress", "a@b.c, d@e.f"), ("emailAddress", "é@b.example")),
    *(("emailAddress", "me@example.com"), ("E", "fleet@company.example")),
)


def linted(attribute: str, value: str) -> tuple[Finding, ...]:
    """Return the findings about the guide's subject with this attribute set to `value`, or added."""
    there = [(name, value if name == attribute else old) for name, old in pki.GOOD.attributes]
    added = [] if attribute in dict(there) else [(attribute, value)]
    return lint_subject(Subject((*there, *added)), pki.GUIDE, LOGIN)
