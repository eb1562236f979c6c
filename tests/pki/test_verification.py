"""Only the requested certificate, fit for use and from a pinned CA, is accepted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.copies import replace
from broker.model.certificate import CaSet, Spki
from broker.model.finding import Finding, Severity
from broker.model.subject import Subject, SubjectRules
from broker.pki import certificates, csr, keys
from broker.pki.certificate_fields import spki_of, subject_of
from broker.pki.verification import Expected, verify_certificate
from tests.support import pki

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
CA = pki.a_ca()
SPKI = keys.spki_of(pki.secret_of(pki.a_key()))
DAY = timedelta(days=1)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def _verified(
    *chain: x509.Certificate,
    issuing: CaSet | None = None,
    ca: pki.Ca = CA,
    pinned: bool = True,
    expected: Spki = SPKI,
    rules: SubjectRules = pki.GUIDE,
) -> tuple[Finding, ...]:
    found = replace(certificates.certificate_of(chain[0], ()), pem=pki.pem(*chain))
    ca_set = issuing or certificates.ca_set(ca.pem)
    wanted = Expected(rules, pki.LOGIN, ca_set if pinned else None, expected, pki.GOOD)
    return verify_certificate(found, wanted, pki.NOW)


def assert_accepted(findings: tuple[Finding, ...]) -> None:
    assert findings == ()


def assert_refused(findings: tuple[Finding, ...], code: str, words: str) -> None:
    """Exactly one error, under this code, in these words, and with a hint."""
    errors = [f for f in findings if f.severity is ERROR]
    assert [f.code for f in errors] == [f"certificate.{code}"], errors
    assert words in errors[0].message, errors[0].message
    assert errors[0].hint


def assert_named(findings: tuple[Finding, ...], severity: Severity, code: str, words: str) -> None:
    """One finding of this severity under this code, among others, in these words."""
    found = [f.message for f in findings if (f.severity, f.code) == (severity, f"certificate.{code}")]
    assert len(found) == 1, findings
    assert words in found[0]


def assert_only(findings: tuple[Finding, ...], severity: Severity, code: str) -> None:
    assert [(f.severity, f.code) for f in findings] == [(severity, f"certificate.{code}")]


def test_requested_certificate_is_accepted() -> None:
    assert_accepted(_verified(pki.a_leaf(CA)))


def test_leaf_without_usages_is_accepted() -> None:
    assert_accepted(_verified(pki.a_leaf(CA, eku=None, digital_signature=None)))


def test_other_key_is_refused() -> None:
    assert_refused(_verified(pki.a_leaf(CA, pki.a_key("other"))), "key", "for another key")


def test_another_login_is_refused() -> None:
    subject = Subject((*pki.GOOD.attributes[:5], ("CN", "MZP9"), pki.GOOD.attributes[6]))
    assert_refused(_verified(pki.a_leaf(CA, subject=subject)), "cn", "CN is 'MZP9', and the account's login is")


def test_missing_common_name_is_refused() -> None:
    subject = Subject(tuple((n, v) for n, v in pki.GOOD.attributes if n != "CN"))
    found = _verified(pki.a_leaf(CA, subject=subject))
    assert_refused(found, "cn", "CN is '', and the account's login is")


def test_a_second_common_name_is_refused() -> None:
    subject = Subject((*pki.GOOD.attributes, ("CN", "MZP9")))
    assert_refused(_verified(pki.a_leaf(CA, subject=subject)), "cn.duplicate", "CN is there 2 times")


def test_joined_common_name_is_refused() -> None:
    first, *rest = pki.a_name(pki.GOOD)
    shared = [a for a in rest if a.oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)]
    rdns = [x509.RelativeDistinguishedName([a]) for a in (first, *rest) if a not in shared]
    leaf = pki.a_leaf(CA, subject=x509.Name([*rdns, x509.RelativeDistinguishedName(shared)]))
    assert_refused(_verified(leaf), "cn.multi-valued", "written with '+'")


def test_unknown_attribute_is_a_warning() -> None:
    leaf = pki.a_leaf(CA, subject=Subject((*pki.GOOD.attributes, ("DC", "example"))))
    assert_only(_verified(leaf), WARNING, "subject.unknown")


def test_no_subject_is_refused() -> None:
    found = _verified(pki.a_leaf(CA, subject=Subject(())), rules=SubjectRules(common_name_is_login=True))
    assert_refused(found, "subject", "has no subject")


def test_an_expired_certificate_is_refused() -> None:
    leaf = pki.a_leaf(CA, not_before=pki.NOW - 366 * DAY, not_after=pki.NOW - DAY)
    assert_refused(_verified(leaf), "expired", "it expired on 2026-02-28")


def test_certificate_of_tomorrow_is_refused() -> None:
    assert_refused(_verified(pki.a_leaf(CA, not_before=pki.NOW + DAY)), "not-yet-valid", "not valid before 2026-03-02")


def test_minute_of_clock_skew_is_a_note() -> None:
    assert_only(_verified(pki.a_leaf(CA, not_before=pki.NOW + timedelta(minutes=1))), NOTE, "clock")


@pytest.mark.parametrize(("days", "code"), [(7, "short"), (3650, "long")])
def test_an_odd_lifetime_is_a_note(days: int, code: str) -> None:
    ca = pki.a_ca(not_after=pki.NOW + 5000 * DAY)
    assert_only(_verified(pki.a_leaf(ca, not_after=pki.NOW + days * DAY), ca=ca), NOTE, code)


def test_ca_certificate_is_refused() -> None:
    assert_refused(_verified(pki.a_leaf(CA, is_ca=True)), "is-ca", "CA:TRUE")


def test_a_servers_certificate_is_refused() -> None:
    leaf = pki.a_leaf(CA, eku=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert_refused(_verified(leaf), "purpose", "its extended key usage (serverAuth) lacks clientAuth")


def test_any_extended_key_usage_is_a_warning() -> None:
    assert_only(_verified(pki.a_leaf(CA, eku=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])), WARNING, "purpose")


def test_leaf_must_sign_handshakes() -> None:
    assert_refused(_verified(pki.a_leaf(CA, digital_signature=False)), "key-usage", "digitalSignature")


def test_unknown_critical_extension_refused() -> None:
    assert_refused(_verified(pki.a_leaf(CA, extra=[(UNKNOWN, True)])), "critical", "1.2.3.4")


def test_unknown_extension_is_accepted() -> None:
    assert_accepted(_verified(pki.a_leaf(CA, extra=[(UNKNOWN, False)])))


def test_a_broken_extension_is_refused() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x05junk!")
    found = _verified(pki.a_leaf(CA, extra=[(broken, False)]))
    assert_refused(found, "chain", "says OpenSSL of")
    assert_named(found, WARNING, "extensions", "it has an extension that some programs cannot read")


def test_a_weak_key_is_refused() -> None:
    leaf = pki.a_leaf(CA, pki.a_key("small", 1024))
    found = _verified(leaf, expected=spki_of(leaf))
    assert "the key has 1024 bits, fewer than 2048" in [f.message for f in found]


def test_a_key_that_is_not_rsa_is_refused() -> None:
    leaf = pki.a_leaf(CA, pki.an_ec_key())
    assert_refused(_verified(leaf, expected=spki_of(leaf)), "key.algorithm", "ec 256, not RSA")


def test_an_elliptic_ca_is_accepted() -> None:
    ca = pki.a_ca(key=pki.an_ec_key("ca"))
    assert_accepted(_verified(pki.a_leaf(ca), ca=ca))


class TestByOpenssl:
    """Certificates that only openssl still makes."""

    def _signed(self, folder: Path, *options: str) -> x509.Certificate:
        request = folder / "request.csr"
        request.write_text(csr.build(pki.secret_of(pki.a_key()), pki.GOOD, pki.RULES))
        (folder / "ca.pem").write_text(CA.pem)
        signer = folder / "ca"
        signer.mkdir()
        made = pki.run(
            "openssl", "x509", "-req", "-in", request, "-CA", folder / "ca.pem", "-CAkey",
            pki.key_file(signer, CA.key), "-set_serial", "7", "-days", "365", *options,
        )  # fmt: skip
        return certificates.load(made)[0]

    def test_version_1_is_refused(self, tmp_path: Path) -> None:
        made = self._signed(tmp_path)
        if made.version is not x509.Version.v1:
            pytest.skip("this openssl makes version 3 only")
        assert_refused(_at_real_time(made), "version", "X.509 version 1")

    @pytest.mark.parametrize("digest", ["sha1", "md5"])
    def test_a_forgeable_signature_is_refused(self, digest: str, tmp_path: Path) -> None:
        extensions = tmp_path / "ext"
        extensions.write_text("basicConstraints=CA:FALSE\n")
        found = _at_real_time(self._signed(tmp_path, f"-{digest}", "-extfile", str(extensions)))
        assert any(f.code == "certificate.signature.weak" and digest.upper() in f.message for f in found)

    def test_an_ordinary_one_is_accepted(self, tmp_path: Path) -> None:
        extensions = tmp_path / "ext"
        extensions.write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
        assert_accepted(_at_real_time(self._signed(tmp_path, "-sha256", "-extfile", str(extensions))))


def _at_real_time(leaf: x509.Certificate) -> tuple[Finding, ...]:
    """Verify at the time that openssl's clock gave, which no test can move."""
    found = certificates.certificate_of(leaf, ())
    now = leaf.not_valid_before_utc + timedelta(seconds=1)
    ca_set = certificates.ca_set(CA.pem)
    return verify_certificate(found, Expected(pki.GUIDE, pki.LOGIN, ca_set, spki_of(leaf), pki.GOOD), now)


def test_unpinned_ca_is_refused_with_a_hint() -> None:
    found = _verified(pki.a_leaf(CA), pinned=False)
    assert_refused(found, "unpinned", "no issuing CA is pinned")
    assert "--accept-ca" in found[-1].hint


def test_another_ca_is_refused() -> None:
    other = pki.a_ca("Other CA")
    assert_refused(_verified(pki.a_leaf(other)), "issuer", "issued by 'CN=Other CA', and pinned is 'CN=Partner Issuing")


def test_namesake_of_the_ca_is_refused() -> None:
    forged = pki.a_ca(key=pki.a_key("forger"))
    assert_refused(_verified(pki.a_leaf(forged)), "issuer", "the pinned CA's key did not sign it")


def test_intermediates_lead_to_the_root() -> None:
    middle = pki.a_ca("Middle", issuer=CA)
    assert_accepted(_verified(pki.a_leaf(middle), middle.certificate))


def test_a_missing_intermediate_is_refused() -> None:
    middle = pki.a_ca("Middle", issuer=CA)
    assert_refused(_verified(pki.a_leaf(middle)), "issuer", "issued by 'CN=Middle'")


def test_a_pinned_intermediate_is_enough() -> None:
    middle = pki.a_ca("Middle", issuer=CA)
    assert_accepted(_verified(pki.a_leaf(middle), ca=middle))


def test_one_pinned_ca_of_two_is_enough() -> None:
    both = certificates.ca_set(CA.pem + pki.a_ca("Other CA").pem)
    assert_accepted(_verified(pki.a_leaf(CA), issuing=both))


def test_a_leaf_may_not_sign_another() -> None:
    """The classic: a client of the same CA issues itself a second certificate."""
    middleman = pki.Ca(pki.a_leaf(CA, pki.a_key("other"), "Somebody"), pki.a_key("other"))
    assert_refused(_verified(pki.a_leaf(middleman), middleman.certificate), "ca.not-a-ca", "'CN=Somebody' is no CA")


def test_too_many_cas_on_the_way_are_refused() -> None:
    strict = pki.a_ca("Strict", basic=x509.BasicConstraints(ca=True, path_length=0))
    middle = pki.a_ca("Middle", issuer=strict)
    found = _verified(pki.a_leaf(middle), middle.certificate, ca=strict)
    assert_refused(found, "chain", "OpenSSL of 'CN=Strict': path length constraint exceeded")


def test_a_ca_that_may_not_sign_is_refused() -> None:
    ca = pki.a_ca(cert_sign=False)
    assert_refused(_verified(pki.a_leaf(ca), ca=ca), "ca.key-usage", "lacks keyCertSign")


def test_an_expired_ca_is_refused() -> None:
    ca = pki.a_ca(not_after=pki.NOW - DAY)
    assert_refused(
        _verified(pki.a_leaf(ca, not_before=pki.NOW - 9 * DAY), ca=ca), "ca.expired", "expired on 2026-02-28"
    )


def test_a_ca_of_tomorrow_is_refused() -> None:
    ca = pki.a_ca(not_before=pki.NOW + DAY)
    assert_refused(_verified(pki.a_leaf(ca), ca=ca), "ca.not-yet-valid", "not valid before")


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "in the reply"])
def test_a_ca_for_servers_only_is_refused(pinned: bool) -> None:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    servers = pki.a_ca("For servers", issuer=CA, extra=[(purposes, False)])
    found = _verified(pki.a_leaf(servers), servers.certificate, ca=servers if pinned else CA)
    assert_refused(found, "ca.purpose", "may only sign for serverAuth")


def test_a_ca_for_any_purpose_is_refused() -> None:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    middle = pki.a_ca("Middle", issuer=CA, extra=[(purposes, False)])
    found = _verified(pki.a_leaf(middle), middle.certificate)
    assert_refused(found, "ca.purpose", "may only sign for anyExtendedKeyUsage, not for clientAuth")


def test_a_ca_for_clients_too_is_accepted() -> None:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    middle = pki.a_ca("Middle", issuer=CA, extra=[(purposes, False)])
    assert_accepted(_verified(pki.a_leaf(middle), middle.certificate))


def test_constraint_of_openssl_only_is_kept() -> None:
    """The address in the subject is not one that the CA may certify."""
    elsewhere = x509.NameConstraints([x509.RFC822Name("elsewhere.example")], None)
    narrow = pki.a_ca("Narrow", issuer=CA, extra=[(elsewhere, True)])
    found = _verified(pki.a_leaf(narrow), narrow.certificate)
    assert_refused(found, "chain", f"OpenSSL of '{subject_of(pki.a_leaf(narrow))}': permitted subtree violation")


def test_a_broken_netscape_type_is_refused() -> None:
    """OpenSSL does not even load such a certificate."""
    broken = x509.UnrecognizedExtension(pki.netscape_type(0)[0].oid, b"\x04\x01\x80")
    assert_refused(
        _verified(pki.a_leaf(CA, extra=[(broken, False)])), "extensions", "broken or there twice: nsCertType"
    )


@pytest.mark.parametrize("bits", [1024, 1536])
def test_a_weak_intermediate_wants_a_person(bits: int) -> None:
    """Pinned itself, it is what a person accepted: a warning."""
    weak = pki.a_ca("Weak middle", issuer=CA, key=pki.a_key("weak ca", bits))
    leaf = pki.a_leaf(weak)
    found = _verified(leaf, weak.certificate)
    assert_refused(found, "ca.weak-key", f"has a weak key (rsa {bits}): others can sign with it")
    assert "--accept-ca" in found[-1].hint
    assert_only(_verified(leaf, ca=weak), WARNING, "ca.weak-key")


def test_accepting_a_tiny_ca_is_not_offered() -> None:
    tiny = pki.a_ca("Tiny", issuer=CA, key=pki.a_tiny_key())
    found = _verified(pki.a_leaf(tiny), tiny.certificate)
    assert_refused(found, "ca.weak-key", "rsa 511")
    assert "--accept-ca" not in found[-1].hint


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "in the reply"])
def test_a_small_curve_of_a_ca_is_refused(pinned: bool) -> None:
    small = pki.a_ca("Small", issuer=CA, key=ec.generate_private_key(ec.SECP192R1()))
    found = _verified(pki.a_leaf(small), small.certificate, ca=small if pinned else CA)
    assert_refused(found, "ca.weak-key", "(ec 192)")


@pytest.mark.parametrize("exponent", [1, 65536], ids=["one", "even"])
def test_a_ca_key_that_is_no_key_is_named(exponent: int) -> None:
    odd = pki.with_exponent(CA.certificate, exponent)
    found = _verified(pki.a_leaf(CA), issuing=certificates.ca_set_of([odd]))
    assert_refused(found, "issuer", "nothing is verified by that CA's key (unknown or invalid)")


def test_a_dsa_ca_is_named() -> None:
    ca = pki.a_ca("Old", key=dsa.generate_private_key(1024))
    assert_refused(_verified(pki.a_leaf(ca), ca=ca), "issuer", "nothing is verified by that CA's key (dsa 1024)")


def test_a_forgeable_rollover_is_refused() -> None:
    """The same name with a new key, signed by the old one with SHA-1: self-issued, but not pinned."""
    assert isinstance(CA.key, rsa.RSAPrivateKey)
    new = pki.a_ca(key=pki.a_key("new ca key"), issuer=CA)
    link = pki.resigned(new.certificate, CA.key, hashes.SHA1())
    assert_refused(_verified(pki.a_leaf(new), link), "ca.signature.weak", "SHA1")


def test_each_changed_attribute_is_a_warning() -> None:
    changes = {"C": "DE", "L": "Berlin", "O": "Other Company", "emailAddress": "else@other.example"}
    subject = Subject(tuple((name, changes.get(name, value)) for name, value in pki.GOOD.attributes))
    found = _verified(pki.a_leaf(CA, subject=subject))
    assert [(f.severity, f.code) for f in found] == [(WARNING, "certificate.subject.changed")] * 4
    assert [f.message for f in found] == [
        f"{name} is '{value}' in the certificate, and is '{pki.GOOD.get(name)}' in the request"
        for name, value in changes.items()
    ]


def test_dropped_or_added_is_a_warning() -> None:
    subject = Subject((*pki.GOOD.attributes[:6], ("OU", "Another")))
    found = _verified(pki.a_leaf(CA, subject=subject))
    assert [f.message for f in found] == [
        "OU is 'Programs Partners, Another' in the certificate, and is 'Programs Partners' in the request",
        "emailAddress is not in the certificate, and is 'fleet@company.example' in the request",
    ]


def test_the_requested_subject_is_accepted() -> None:
    """The string types may differ."""
    leaf = pki.a_leaf(CA, subject=pki.a_name(pki.GOOD, "BMPString"))
    assert_accepted(_verified(leaf))


WEAK = pki.a_ca("Weak", key=pki.a_key("weak ca", 1024))
SILENT = pki.a_ca("Silent", basic=None)
OTHER_TYPES = pki.a_name("Partner Issuing CA", "PrintableString")
TOLERATED = [
    (WEAK, pki.a_leaf(WEAK), "ca.weak-key"),
    (SILENT, pki.a_leaf(SILENT), "ca.no-basic-constraints"),
    (CA, pki.a_leaf(CA, issuer_name=OTHER_TYPES), "ca.string-types"),
]


@pytest.mark.parametrize(("ca", "leaf", "code"), TOLERATED, ids=["1024 bits", "no BasicConstraints", "string types"])
def test_three_oddities_of_cas_are_warnings(ca: pki.Ca, leaf: x509.Certificate, code: str) -> None:
    assert_only(_verified(leaf, ca=ca), WARNING, code)


def test_oddities_excuse_no_other_fault() -> None:
    """OpenSSL is asked whether the chain holds; it refuses a v3 CA without any sign of being one."""
    ca = pki.a_ca("Mute", basic=None, cert_sign=None)
    assert_refused(_verified(pki.a_leaf(ca), ca=ca), "chain", "'CN=Mute': invalid CA certificate")


def test_many_cross_signed_cas_are_fast() -> None:
    """One key, one name, sixty certificates that all sign each other: a path search must not try every order."""
    key = pki.a_key("ca crowd")
    crowd = [pki.a_ca("crowd", key=key).certificate for _ in range(60)]
    found = _verified(pki.a_leaf(pki.Ca(crowd[0], key)), *crowd)
    assert_refused(found, "issuer", "does not chain")
