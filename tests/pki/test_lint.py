"""The linter finds every fault that the guide mentions, with field, value and hint."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding

from broker.copies import replace
from broker.model.finding import Finding, Severity
from broker.model.subject import KeyRules, Subject, SubjectRules
from broker.pki import csr
from broker.pki.certificate_fields import PublicKey
from broker.pki.lint import lint_csr, lint_subject
from tests.pki.test_csr import by_openssl
from tests.support import pki

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
KEY = pki.secret_of(pki.a_key())


def _with(**values: str) -> Subject:
    return Subject(tuple((name, values.get(name, value)) for name, value in pki.GOOD.attributes))


def _without(name: str) -> Subject:
    return Subject(tuple((n, v) for n, v in pki.GOOD.attributes if n != name))


def _found(findings: tuple[Finding, ...], code: str) -> Finding:
    """The one finding with this code."""
    found = [f for f in findings if f.code == code]
    assert len(found) == 1, [f.code for f in findings]
    return found[0]


def _linted(data: bytes, rules: SubjectRules = pki.GUIDE, key_rules: KeyRules = pki.RULES) -> tuple[Finding, ...]:
    return lint_csr(csr.parse(data), rules, key_rules, pki.LOGIN)


def test_a_good_subject_has_no_fault() -> None:
    assert lint_subject(pki.GOOD, pki.GUIDE, pki.LOGIN) == ()


def test_a_good_request_has_no_fault() -> None:
    assert _linted(csr.build(KEY, pki.GOOD, pki.RULES).encode()) == ()


@pytest.mark.parametrize(
    ("subject", "code", "severity", "words", "hint"),
    [
        (_without("ST"), "subject.st.missing", ERROR, "ST is missing", "set ST"),
        (_without("OU"), "subject.ou.missing", ERROR, "OU is missing", "set OU to 'Programs Partners'"),
        (_without("emailAddress"), "subject.email.missing", ERROR, "emailAddress is missing", "set emailAddress"),
        (_without("CN"), "subject.cn.missing", ERROR, "CN is missing", "set CN"),
        (_with(CN=""), "subject.cn.empty", ERROR, "CN is empty", "set CN"),
        (_with(OU="Programs Partner"), "subject.ou.wrong", ERROR, "the final s is missing", "'Programs Partners'"),
        (_with(OU="programs partners"), "subject.ou.wrong", ERROR, "upper and lower case count", "'Programs Partners'"),
        (_with(OU="Programs  Partners"), "subject.ou.wrong", ERROR, "the blanks differ", "'Programs Partners'"),
        (_with(OU="Fleet"), "subject.ou.wrong", ERROR, "OU is 'Fleet'", "'Programs Partners'"),
        (_with(L="<Paris"), "subject.l.bracket", ERROR, "L keeps a bracket.*'<Paris'", "set L to 'Paris'"),
        (_with(L="<your city>"), "subject.l.placeholder", ERROR, "L is still the template's", "your own"),
        (_with(O="{{ company }}"), "subject.o.placeholder", ERROR, "template's", "your own"),
        (_with(O="${COMPANY}"), "subject.o.placeholder", ERROR, "template's", "your own"),
        (_with(O="Your company"), "subject.o.placeholder", ERROR, "template's", "your own"),
        (_with(CN="your MZP login"), "subject.cn.placeholder", ERROR, "template's", "your own"),
        (_with(O="changeme"), "subject.o.placeholder", ERROR, "template's", "your own"),
        (_with(ST="?le-de-France"), "subject.st.mojibake", ERROR, r"'\?' in place of a letter", "type ST again"),
        (_with(O="Soci?t?"), "subject.o.mojibake", ERROR, r"'\?' in place of a letter: 'Soci\?t\?'", "type O again"),
        (_with(C="ZZ"), "subject.c.unassigned", ERROR, "C is no country's code: 'ZZ'", "ISO 3166"),
        (_with(C="XX"), "subject.c.unassigned", ERROR, "C is no country's code: 'XX'", "ISO 3166"),
        (_with(CN="MZP 128745"), "subject.cn.blank", ERROR, "CN is 'MZP 128745': no login has a blank", "'MZP128745'"),
        (_with(emailAddress="a@example.com"), "subject.email.placeholder", ERROR, "an example's", "answers to"),
        (Subject((*pki.GOOD.attributes[:6], ("E", "a@b.c"))), "subject.e.name", ERROR, "'E' is no", "emailAddress"),
        (_with(O="o" * 65), "subject.o.long", ERROR, "65 characters, the standard allows 64", "64"),
        (_with(O="a\x1bb"), "subject.o.control", ERROR, r"'a\\x1bb'", "one line"),
        (_with(O="a\u200bb"), "subject.o.invisible", WARNING, r"'a\\u200bb'", "pasting"),
        (
            _with(O="SociÃ©tÃ©"),
            "subject.o.mojibake",
            ERROR,
            "twice: 'SociÃ©tÃ©'",
            "to 'Société', with openssl -utf8",
        ),
        (_with(O="Ã\x89clair"), "subject.o.mojibake", ERROR, "encoded to UTF-8 twice", "to 'Éclair', with"),
        (_with(O="Soci\ufffdt"), "subject.o.mojibake", ERROR, "lost character", "UTF-8 terminal"),
        (_with(O="Socie\u0301te\u0301"), "subject.o.decomposed", WARNING, "compares unequal", "'Société'"),
        (_with(O=" x"), "subject.o.blank", ERROR, "begins or ends with a blank: ' x'", "remove it"),
        (_with(O="x\u00a0"), "subject.o.blank", ERROR, "begins or ends with a blank", "remove it"),
        (_with(C="fr"), "subject.c.invalid", ERROR, "not two upper-case letters: 'fr'", "set C to FR"),
        (_with(C="FRA"), "subject.c.invalid", ERROR, "not two upper-case letters: 'FRA'", "ISO 3166"),
        (_with(C="F1"), "subject.c.invalid", ERROR, "'F1'", "ISO 3166"),
        (_with(C="UK"), "subject.c.uk", WARNING, "'GB'", "set C to GB"),
        (_with(CN="MZP9"), "subject.cn.login", ERROR, "CN is 'MZP9', and the account's login is", pki.LOGIN),
        (_with(CN=pki.LOGIN.lower()), "subject.cn.login", ERROR, "upper and lower case count", pki.LOGIN),
        (_with(CN="ABC1"), "subject.cn.prefix", WARNING, "usually begin with 'MZP'", "compare"),
        (_with(emailAddress="fleet"), "subject.email.invalid", ERROR, "not one address: 'fleet'", "single"),
        (_with(emailAddress="a@b.c, d@e.f"), "subject.email.invalid", ERROR, "not one address", "single"),
        (_with(emailAddress="Me <a@b.example>"), "subject.email.invalid", ERROR, "not one address", "single"),
        (_with(emailAddress="é@b.example"), "subject.email.ascii", ERROR, "not plain ASCII", "xn--"),
        (
            _with(emailAddress="a@" + "b" * 130 + ".c"),
            "subject.email.openssl",
            WARNING,
            "longer than the 128",
            "short",
        ),
        (Subject((*pki.GOOD.attributes, ("OU", "x"))), "subject.ou.duplicate", ERROR, "2 times: .*, 'x'", "keep one"),
        (Subject(pki.GOOD.attributes[::-1]), "subject.order", WARNING, "the order emailAddress, CN, OU", "order"),
        (Subject((*pki.GOOD.attributes, ("DC", "x"))), "subject.dc.name", ERROR, "'DC' is no attribute", "C, ST"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_fault_of_the_subject_is_named(
    subject: Subject, code: str, severity: Severity, words: str, hint: str
) -> None:
    found = _found(lint_subject(subject, pki.GUIDE, pki.LOGIN), code)
    assert found.severity is severity
    assert re.search(words, found.message), found.message
    assert hint in found.hint


PLACEHOLDERS = [
    *("Some-State", "Internet Widgits Pty Ltd", "Default City", "Default Company Ltd", "My Company Ltd", "Unknown"),
    *("[Company]", "(company)", "{company}", "<company>", "«company»", "null", "None", "undefined", "N/A"),
    *("$O", "$COMPANY", "${O}", "$(hostname)", "%O%", "%(company)s", "@O@", "__COMPANY__", "{{ o }}", ":company"),
    *("Company", "Company Name", "Organization Name", "Organisational Unit", "Locality Name", "State or Province Name"),
    *("Common Name", "e-mail address", "your company here", "Your-Login", "MZPxxxxxx", "XXXXXX", "xxx"),
    *("foo", "foobar", "n.a.", "nil", "TODO", "to do", "TBD", "change me", "-", "--", "...", "?", "*", "_"),
]


@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_a_placeholder_is_an_error(value: str) -> None:
    """In any field, in any case."""
    for name in ("O", "L", "CN"):
        for written in (value, value.upper(), value.lower(), f" {value}"):
            linted = lint_subject(_with(**{name: written}), pki.GUIDE, pki.LOGIN)
            found = _found(linted, f"subject.{name.lower()}.placeholder")
            assert found.severity is ERROR
            assert f"{name} is still the template's" in found.message


def test_every_country_has_a_code() -> None:
    """As many as ISO 3166-1 has, and XK."""
    letters = [chr(n) for n in range(ord("A"), ord("Z") + 1)]
    linted = {a + b: lint_subject(_with(C=a + b), pki.GUIDE, pki.LOGIN) for a in letters for b in letters}
    assert len([code for code, found in linted.items() if not found]) == 250
    assert {f.code for found in linted.values() for f in found} == {"subject.c.unassigned", "subject.c.uk"}


def test_long_values_are_linted_fast() -> None:
    started = time.process_time()
    for value in ("{{", "<a", "$(", "${", "%(", "?", "x", "__A", "[", "(", "\u00e9", "\u0301\u0316"):
        lint_subject(_with(O=value * 30_000), pki.GUIDE, pki.LOGIN)
    assert time.process_time() - started < 2


def test_partner_may_forbid_the_address() -> None:
    rules = SubjectRules(forbidden=frozenset({"emailAddress"}))
    found = lint_subject(pki.GOOD, rules, "anything")
    assert [(f.code, f.severity) for f in found] == [("subject.email.forbidden", ERROR)]
    assert lint_subject(_without("emailAddress"), rules, "anything") == ()


def test_second_unit_may_be_a_warning() -> None:
    subject = Subject((("OU", "a"), ("OU", "b"), ("CN", "x")))
    assert _found(lint_subject(subject, SubjectRules(), ""), "subject.ou.duplicate").severity is WARNING


def test_errors_come_first() -> None:
    found = lint_subject(_with(C="UK", CN="ABC", O=""), pki.GUIDE, pki.LOGIN)
    severities = [list(Severity).index(f.severity) for f in found]
    assert severities == sorted(severities)
    assert len(set(severities)) > 1


ODD_NAMES = [
    *(
        "Yourkshire Cars",
        "Who Cares? Ltd",
        "Company & Sons",
        "State Street",
        "Unknown Pleasures SARL",
        "Exxon",
        "Nilsson",
    ),
    *("Your Parking Space Ltd", "Tödös GmbH", "A <-> B Cars", "Ça ira"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_company_names_pass(name: str) -> None:
    assert lint_subject(_with(O=name), pki.GUIDE, pki.LOGIN) == ()


def test_openssl_without_utf8_is_found_out(tmp_path: Path) -> None:
    found = _linted(by_openssl(tmp_path, pki.GOOD, "-sha256"))
    assert "to 'Société Exemple'" in _found(found, "subject.o.mojibake").hint


@pytest.mark.parametrize(("mask", "kind"), [("default", "TeletexString"), ("MASK:0x0800", "BMPString")])
def test_old_string_types_are_warned_of(mask: str, kind: str, tmp_path: Path) -> None:
    found = _linted(by_openssl(tmp_path, _with(ST="Paris"), "-utf8", mask=mask))
    assert kind in _found(found, "subject.o.string-type").message


def test_wrong_string_types_are_warnings() -> None:
    made = x509.CertificateSigningRequestBuilder().subject_name(pki.a_name(pki.GOOD, "UTF8String"))
    found = _linted(made.sign(pki.a_key(), hashes.SHA256()).public_bytes(Encoding.DER))
    assert "wants PrintableString" in _found(found, "subject.c.string-type").message
    assert "wants IA5String" in _found(found, "subject.email.string-type").message


@pytest.mark.parametrize(
    ("change", "code", "severity", "words"),
    [
        ({"key": PublicKey("rsa", 1024, 65537)}, "csr.key.weak", ERROR, "the key has 1024 bits, fewer than 2048"),
        ({"key": PublicKey("rsa", 2050, 65537)}, "csr.key.odd", WARNING, "unusual size: 2050 bits"),
        ({"key": PublicKey("rsa", 4096, 65537)}, "csr.key.larger", WARNING, "4096 bits, and the partner wants 2048"),
        ({"key": PublicKey("ec", 256)}, "csr.key.algorithm", ERROR, "the key is ec 256, not RSA"),
        ({"key": PublicKey("unknown")}, "csr.key.algorithm", ERROR, "the key is unknown or invalid, not RSA"),
        ({"key": PublicKey("rsa", 2048, 3)}, "csr.key.exponent", WARNING, "exponent is 3"),
        ({"key": PublicKey("rsa", 2048, 4)}, "csr.key.exponent", ERROR, "exponent is 4: no RSA key has it"),
        ({"digest": "sha512"}, "csr.signature.digest", WARNING, "signed with sha512, and the partner wants sha256"),
        ({"digest": ""}, "csr.signature.digest", WARNING, "an unusual algorithm"),
        ({"signature_valid": False}, "csr.signature.invalid", ERROR, "does not fit its key"),
        ({"challenge_password": True}, "csr.challenge-password", WARNING, "readable to everybody"),
        ({"asks_to_be_ca": True}, "csr.ca", ERROR, "asks for a CA certificate"),
        ({"extensions": ("subjectAltName",)}, "csr.extensions", NOTE, "subjectAltName"),
        ({"header": "NEW CERTIFICATE REQUEST"}, "csr.header", NOTE, "NEW CERTIFICATE REQUEST"),
        ({"holds_private_key": True}, "csr.private-key", ERROR, "a private key beside the request"),
        ({"pss": True}, "csr.signature.pss", WARNING, "RSASSA-PSS"),
    ],
)
def test_a_fault_of_the_request_is_named(change: dict[str, object], code: str, severity: Severity, words: str) -> None:
    parsed = csr.parse(csr.build(KEY, pki.GOOD, pki.RULES).encode())
    found = lint_csr(replace(parsed, **change), pki.GUIDE, pki.RULES, pki.LOGIN)  # type: ignore[arg-type]
    assert _found(found, code).severity is severity
    assert words in _found(found, code).message


def test_key_below_partners_size_is_an_error() -> None:
    found = _linted(csr.build(KEY, pki.GOOD, pki.RULES).encode(), key_rules=KeyRules(bits=4096))
    assert _found(found, "csr.key.smaller").severity is ERROR


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_a_forgeable_signature_is_an_error(digest: str, tmp_path: Path) -> None:
    found = _linted(by_openssl(tmp_path, pki.GOOD, "-utf8", f"-{digest}"))
    assert _found(found, "csr.signature.weak").message.endswith(f"{digest.upper()}, which can be forged")


def test_a_real_pss_request_is_seen() -> None:
    made = x509.CertificateSigningRequestBuilder().subject_name(pki.a_name(pki.GOOD))
    signed = made.sign(pki.a_key(), hashes.SHA256(), rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32))
    assert _found(_linted(signed.public_bytes(Encoding.DER)), "csr.signature.pss").severity is WARNING


def test_small_key_from_openssl_is_an_error(tmp_path: Path) -> None:
    pki.key_file(tmp_path, pki.a_key("small", 1024))
    assert _found(_linted(by_openssl(tmp_path, pki.GOOD)), "csr.key.weak").severity is ERROR


def test_key_in_the_file_is_an_error(tmp_path: Path) -> None:
    key = pki.key_file(tmp_path).read_bytes()
    found = _linted(key + by_openssl(tmp_path, pki.GOOD))
    assert _found(found, "csr.private-key").severity is ERROR


def test_odd_attributes_are_found(tmp_path: Path) -> None:
    made = pki.run(
        "openssl", "req", "-new", "-key", pki.key_file(tmp_path), "-config", "/dev/null", "-multivalue-rdn", "-subj",
        "/C=FR/serialNumber=7/OU=a+CN=b",
    )  # fmt: skip
    found = _linted(made)
    assert _found(found, "subject.unknown").message == "the subject holds serialNumber ('7'), which no rule mentions"
    assert _found(found, "subject.multi-valued").severity is ERROR


@pytest.mark.peer("keytool")
@pytest.mark.slow
class TestKeytool:
    """Requests by the guide's other program."""

    def _request(self, folder: Path, dname: str) -> bytes:
        store = folder / "store.p12"
        options: list[str | Path] = ["-keystore", store, "-storepass", "changeit", "-alias", "a"]
        pki.run("keytool", "-genkeypair", "-keyalg", "RSA", "-keysize", "2048", "-dname", dname, *options)
        return pki.run("keytool", "-certreq", *options)

    def test_order_types_and_header_are_notes(self, tmp_path: Path) -> None:
        dname = (
            f"C=FR, ST=Paris, L=Paris, O=Exemple, OU=Programs Partners, CN={pki.LOGIN}, "
            "EMAILADDRESS=fleet@company.example"
        )
        found = _linted(self._request(tmp_path, dname))
        assert {f.code for f in found} == {
            "subject.reversed", "subject.printable", "csr.extensions", "csr.header",
        }  # fmt: skip
        assert {f.severity for f in found} == {NOTE}

    def test_empty_name_and_country_are_errors(self, tmp_path: Path) -> None:
        found = _linted(self._request(tmp_path, "CN=, OU=Programs Partner, O=x, C=FRA"))
        codes = {f.code for f in found if f.severity is ERROR}
        assert {"subject.cn.empty", "subject.ou.wrong", "subject.c.invalid", "subject.st.missing"} <= codes
