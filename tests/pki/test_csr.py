"""Requests equal openssl's byte for byte, and requests made by hand are parsed as they are."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.errors import InputError, RefusedError
from broker.model.finding import FindingsError
from broker.model.subject import KeyRules, Subject
from broker.pki import csr, keys
from broker.pki.lint import lint_csr
from tests.support import pki
from tests.support.depth import sampled

KEY = pki.secret_of(pki.a_key())
FULL = pki.GOOD.attributes


def _with(**values: str) -> Subject:
    return Subject(tuple((name, values.get(name, value)) for name, value in FULL))


SUBJECTS = [
    pki.GOOD,
    Subject((("CN", "MZP1"),)),
    Subject((("C", "DE"), ("CN", "x"))),
    Subject(tuple(reversed(FULL))),
    Subject((("OU", "one"), ("OU", "two"), ("CN", "x"))),
    Subject((("CN", "x"), ("emailAddress", "a@b.example"))),
    *(
        _with(O=value)
        for value in (
            "plain",
            "Müller & Söhne GmbH",
            "Łódź Sp. z o.o.",
            "株式会社スバル",
            "Ελλάς δρόμοι",
            "شركة",
            "🚗 Fleet 🚚",
            "👩‍🔧 joined",
            'the "Best" cars',
            "it's",
            "Cars, Inc.",
            "A+B",
            "a=b",
            " leading",
            "trailing ",
            "  ",
            "a/b/c",
            "#hash",
            "a # b",
            "back\\slash",
            "semi;colon",
            "<angle>",
            "$dollar ${x}",
            "`tick`",
            "@at",
            "e\u0301 decomposed",
            "no\u00a0break",
            "x",
            "o" * 64,
            "é" * 64,
        )
    ),
    _with(ST="s" * 128, L="l" * 128),
    _with(ST="日" * 128),
    _with(CN="c" * 64, OU="u" * 64),
    _with(emailAddress="a" * 59 + "@" + "b" * 60 + ".example"),
    _with(emailAddress="o'brien+fleet=1/x@b.example"),
    _with(CN="é" * 64),
    _with(C="fr"),
]


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def by_openssl(folder: Path, subject: Subject, *options: str, extra: str = "", mask: str = "") -> bytes:
    """A request by the guide's command: prompt = no, a distinguished name, nothing else."""
    lines = [f"{n}.{name} = {_quoted(value)}" for n, (name, value) in enumerate(subject.attributes)]
    head = ["[req]", "prompt = no", "distinguished_name = dn", *([f"string_mask = {mask}"] if mask else []), extra]
    config = folder / "request.cnf"
    config.write_text("\n".join([*head, "[dn]", *lines, ""]), encoding="utf-8")
    key = folder / "key.pem"
    if not key.exists():
        pki.key_file(folder)
    return pki.run("openssl", "req", "-new", "-key", key, "-config", config, *(options or ("-utf8", "-sha256")))


def test_there_are_more_than_thirty_subjects() -> None:
    assert len(SUBJECTS) > 30


@pytest.mark.parametrize("subject", sampled(SUBJECTS, every=4, rest=pytest.mark.slow), ids=str)
def test_request_equals_openssls(subject: Subject, tmp_path: Path) -> None:
    assert csr.build(KEY, subject, pki.RULES).encode() == by_openssl(tmp_path, subject)


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_other_digests_are_openssls_too(digest: str, tmp_path: Path) -> None:
    theirs = by_openssl(tmp_path, pki.GOOD, "-utf8", f"-{digest}")
    assert csr.build(KEY, pki.GOOD, KeyRules(digest=digest)).encode() == theirs


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_request_has_the_subject_and_the_key(subject: Subject) -> None:
    assert csr.parse(csr.build(KEY, subject, pki.RULES).encode()).name.subject == subject


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("O", "", "O is empty"),
        ("O", "a\0b", r"O holds a control character.*'a\\x00b'"),
        ("O", "a\nb", r"O holds a control character.*'a\\nb'"),
        ("O", "a\x7fb", "O holds a control character"),
        ("O", "a\u2028b", "O holds a control character"),
        ("O", "a\ud800", "O holds half a character"),
        ("O", "o" * 65, "O has 65 characters, the standard allows 64"),
        ("CN", "é" * 65, "CN has 65 characters"),
        ("ST", "s" * 129, "ST has 129 characters, the standard allows 128"),
        ("C", "FRA", "C has 3 characters"),
        ("C", "é1", "C holds characters that no country code has"),
        ("C", "F", "C has one letter instead of two"),
        ("emailAddress", "flotté@b.example", "emailAddress is not plain ASCII"),
        ("emailAddress", "a@" + "b" * 254, "emailAddress has 256 characters, the standard allows 255"),
        ("DC", "x", "'DC' is no attribute of a subject"),
    ],
)
def test_unencodable_value_is_refused(name: str, value: str, words: str) -> None:
    subject = Subject((("CN", "x"), (name, value)) if name != "CN" else ((name, value),))
    with pytest.raises(FindingsError, match=words) as caught:
        csr.build(KEY, subject, pki.RULES)
    assert caught.value.hint


def test_an_empty_subject_is_refused() -> None:
    with pytest.raises(FindingsError, match="the subject has no attributes"):
        csr.build(KEY, Subject(()), pki.RULES)


def test_too_small_key_is_refused() -> None:
    with pytest.raises(RefusedError, match="the key has 2048 bits, the partner wants 4096"):
        csr.build(KEY, pki.GOOD, KeyRules(bits=4096))


def test_our_own_request_is_read_in_full() -> None:
    parsed = csr.parse(csr.build(KEY, pki.GOOD, pki.RULES).encode())
    assert (parsed.name.subject, parsed.spki, parsed.header) == (pki.GOOD, keys.spki_of(KEY), "CERTIFICATE REQUEST")
    assert (parsed.key.algorithm, parsed.key.bits, parsed.key.exponent) == ("rsa", 2048, 65537)
    assert (parsed.digest, parsed.signature_valid, parsed.pss) == ("sha256", True, False)
    assert [a.string_type for a in parsed.name.attributes] == [
        "PrintableString",
        *["UTF8String"] * 5,
        "IA5String",
    ]
    assert (parsed.extensions, parsed.challenge_password) == ((), False)
    assert (parsed.holds_private_key, parsed.asks_to_be_ca) == (False, False)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda pem: b"\xef\xbb\xbf" + pem,
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: b"Certificate Request:\n    Data:\n" + pem + b"\n-- \nBest regards",
        lambda pem: pem.decode().encode("utf-16"),
        lambda pem: pem.replace(b"\n", b"\\n"),
        lambda pem: pem.replace(b"\n", b" "),
        lambda pem: base64.b64decode(b"".join(pem.splitlines()[1:-1])),
    ],
    ids=["bom", "crlf", "text", "utf-16", "escaped", "one line", "der"],
)
def test_a_request_is_read_in_every_wrapping(wrap: object) -> None:
    pem = csr.build(KEY, pki.GOOD, pki.RULES)
    assert callable(wrap)
    assert csr.parse(wrap(pem.encode())).pem == pem


def test_extras_from_openssl_are_reported(tmp_path: Path) -> None:
    extra = (
        "attributes = att\nreq_extensions = ext\n[att]\nchallengePassword = swordfish\n"
        "[ext]\nsubjectAltName = DNS:x.example\nbasicConstraints = CA:TRUE\n1.2.3.4 = ASN1:NULL"
    )
    parsed = csr.parse(by_openssl(tmp_path, pki.GOOD, extra=extra))
    assert parsed.challenge_password
    assert parsed.asks_to_be_ca
    assert parsed.extensions == ("subjectAltName", "basicConstraints", "1.2.3.4")
    assert "swordfish" not in repr(parsed)


def test_teletex_is_read_as_latin_1(tmp_path: Path) -> None:
    parsed = csr.parse(by_openssl(tmp_path, Subject((("O", "Société"),)), "-utf8", mask="default"))
    assert [(a.value, a.string_type) for a in parsed.name.attributes] == [("Société", "TeletexString")]


def test_odd_attributes_are_parsed(tmp_path: Path) -> None:
    key = pki.key_file(tmp_path)
    made = pki.run(
        "openssl", "req", "-new", "-key", key, "-config", "/dev/null", "-multivalue-rdn", "-subj",
        "/DC=example/serialNumber=7/OU=a+CN=b",
    )  # fmt: skip
    parsed = csr.parse(made)
    assert tuple(a.name for a in parsed.name.attributes) == ("DC", "serialNumber", "CN", "OU")
    assert [a.name for a in parsed.name.unknown] == ["DC", "serialNumber"]
    assert sorted(parsed.name.multi_valued) == ["CN", "OU"]


def test_a_forged_request_does_not_verify() -> None:
    """Another subject of the same length under the old signature."""
    pem = csr.build(KEY, pki.GOOD, pki.RULES)
    der = base64.b64decode("".join(pem.splitlines()[1:-1])).replace(b"MZP0012345", b"MZP0099999")
    parsed = csr.parse(der)
    assert parsed.name.subject.get("CN") == "MZP0099999"
    assert not parsed.signature_valid


def test_other_keys_are_named() -> None:
    made = x509.CertificateSigningRequestBuilder().subject_name(pki.a_name("x")).sign(pki.an_ec_key(), hashes.SHA256())
    assert str(csr.parse(made.public_bytes(Encoding.DER)).key) == "ec 256"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file holds no signing request, but nothing in PEM"),
        (b"hello", "no signing request"),
        (pki.pem(pki.a_ca().certificate).encode(), "no signing request, but CERTIFICATE"),
        (b"x" * 70_000, "too many for a request"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMIIC", "has no END line: it is cut off"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n***\n-----END CERTIFICATE REQUEST-----", "is not base64"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMIIC\n-----END CERTIFICATE REQUEST-----", "cannot be read"),
        (csr.build(KEY, pki.GOOD, pki.RULES).encode() * 2, "holds 2 signing requests"),
        (b"-----BEGIN X-----\n-----END X-----\n" * 65, "more than 64 PEM blocks"),
        (pki.der(pki.a_ca().certificate), "cannot be read"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        csr.parse(data)
    assert caught.value.hint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # the library warns of odd names
def test_mutations_raise_only_input_errors() -> None:
    chance = random.Random(20260302)
    pem = csr.build(KEY, pki.GOOD, pki.RULES)
    seeds = [pem.encode(), base64.b64decode("".join(pem.splitlines()[1:-1]))]
    read = 0
    for number in range(2000):
        octets = bytearray(seeds[number % 2])
        for _ in range(chance.randint(1, 4)):
            octets[chance.randrange(len(octets))] = chance.randrange(256)
        try:
            lint_csr(csr.parse(bytes(octets)), pki.GUIDE, pki.RULES, pki.LOGIN)
        except InputError:
            continue
        read += 1
    assert 0 < read < 2000
