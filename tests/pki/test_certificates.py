"""Certificates as values have the same fields as openssl shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.errors import InputError
from broker.model.fingerprint import format_fingerprint, parse_fingerprint
from broker.pki import certificates
from tests.support import pki

ROOT = pki.a_ca("Root")
MIDDLE = pki.a_ca("Middle", issuer=ROOT)
LEAF = pki.a_leaf(MIDDLE)


def test_chain_is_leaf_first_without_root() -> None:
    found = certificates.certificate(pki.pem(ROOT.certificate, MIDDLE.certificate, LEAF))
    assert found.pem == pki.pem(LEAF, MIDDLE.certificate)
    assert (found.issuer, found.not_after) == ("CN=Middle", LEAF.not_valid_after_utc)
    assert found.subject.startswith("C=FR, ST=Île-de-France, L=Paris, O=Société Exemple, OU=Programs Partners, CN=MZP")
    assert found == certificates.certificate(pki.pem(LEAF, MIDDLE.certificate))


def test_unrelated_cas_are_left_out() -> None:
    assert certificates.certificate(pki.pem(LEAF, pki.a_ca("Other").certificate)).pem == pki.pem(LEAF)


def test_facts_and_fingerprints_are_openssls(tmp_path: Path) -> None:
    found = certificates.certificate(pki.der(LEAF))
    options = ["-noout", "-serial", "-fingerprint", "-sha256"]
    printed = pki.run("openssl", "x509", *options, stdin=pki.pem(LEAF).encode()).decode()
    serial, fingerprint = (line.split("=")[1] for line in printed.split("\n")[:2])
    assert int(found.serial, 16) == int(serial, 16)
    assert parse_fingerprint(fingerprint) == found.ref
    assert format_fingerprint(found.ref) == fingerprint
    public = pki.run("openssl", "x509", "-noout", "-pubkey", stdin=pki.pem(LEAF).encode())
    assert (
        found.spki == hashlib.sha256(pki.run("openssl", "pkey", "-pubin", "-outform", "DER", stdin=public)).hexdigest()
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "there is no certificate"),
        ("nothing here", "there is no certificate"),
        (b"x" * (1024 * 1024 + 1), "too many for certificates"),
        (pki.pem(LEAF, pki.a_leaf(MIDDLE, pki.a_key("other"))), "there are 2 leaf certificates among 2, not one"),
        (pki.pem(ROOT.certificate, MIDDLE.certificate), "there are 0 leaf certificates among 2"),
        (pki.pem(LEAF)[:300], "is cut off"),
    ],
)
def test_several_leaves_or_none_are_refused(data: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        certificates.certificate(data)


def test_order_makes_no_other_ca_set() -> None:
    one = certificates.ca_set(ROOT.pem + MIDDLE.pem)
    assert one == certificates.ca_set(MIDDLE.pem + ROOT.pem + ROOT.pem)
    assert one.ref != certificates.ca_set(ROOT.pem).ref
    assert list(one.fingerprints) == sorted(one.fingerprints)
    assert len(certificates.load(one.pem)) == 2


def test_ca_set_ends_with_its_first() -> None:
    short = pki.a_ca("Short", not_after=pki.NOW)
    assert certificates.ca_set(ROOT.pem + short.pem).not_after == pki.NOW


def test_description_has_usages() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("x.example")])
    eku = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    described = certificates.describe(pki.a_leaf(MIDDLE, eku=eku, extra=[(names, False)]))
    assert (described.key, described.signed_with, described.version, described.is_ca) == (
        "rsa 2048",
        "sha256",
        3,
        False,
    )
    assert (described.key_usage, described.extended_key_usage) == (
        ("digital_signature", "key_encipherment"),
        ("clientAuth", "serverAuth"),
    )
    assert described.alternative_names == ("x.example",)
    assert (len(described.fingerprint), len(described.sha1)) == (64, 40)


def test_a_description_of_a_ca_says_so() -> None:
    described = certificates.describe(ROOT.certificate)
    assert (described.is_ca, described.issuer, described.subject) == (True, "CN=Root", "CN=Root")
    assert "key_cert_sign" in described.key_usage


@pytest.mark.parametrize("text", ["AB" * 32, ":".join(["ab"] * 32), "SHA256:" + "ab" * 32, " ab" * 32, "sha256 Fingerprint=" + "AB:" * 31 + "AB"])  # fmt: skip  # noqa: E501
def test_copied_fingerprints_are_accepted(text: str) -> None:
    assert parse_fingerprint(text) == "ab" * 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a SHA-256 fingerprint"),
        ("ab" * 31, "not a SHA-256 fingerprint"),
        ("zz" * 32, "not a SHA-256 fingerprint"),
        ("AB:" * 19 + "AB", "this is a SHA-1 fingerprint"),
        ("ab" * 16, "this is a MD5 fingerprint"),
    ],
)
def test_other_fingerprints_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_fingerprint(text)
