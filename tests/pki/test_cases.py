"""Replies that people had: read as a reply is, and judged under their root. No real person, company or key."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from broker.model.subject import Subject, SubjectRules
from broker.pki import certificates, csr
from broker.pki.certificate_fields import spki_of
from broker.pki.chain import leaves
from broker.pki.lint import lint_csr
from broker.pki.reply import read_reply
from broker.pki.verification import Expected, best_path, verify_certificate
from tests.support import pki

CASES = Path(__file__).parent / "cases"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
ROOT = certificates.load((CASES / "root.pem").read_bytes())
RULES = SubjectRules(common_name_is_login=True)
REQUESTED = Subject(
    (
        ("C", "FR"),
        ("ST", "Ile"),
        ("L", "Paris"),
        ("O", "Soci\\u00e9t\\u00e9"),
        ("OU", "Programs Partners"),
        ("CN", "MZP7654321"),
        ("emailAddress", "it@exemple.example"),
    )
)


def judged(name: str) -> list[str]:
    reply = read_reply((CASES / name).read_bytes())
    spki = spki_of(leaves(reply.certificates)[0])
    found = reply.for_spki(spki, partial(best_path, trusted=ROOT, now=NOW))
    expected = Expected(RULES, "MZP7654321", certificates.ca_set_of(ROOT), spki, REQUESTED)
    said = verify_certificate(found, expected, NOW)
    return [f"{f.severity.value} {f.code.removeprefix('certificate.')}: {f.message}" for f in said]


@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("r_weak.pem", ["error ca.weak-key: the CA 'CN=Weak CA' has a weak key (rsa 512"]),
        ("r_ns.pem", ["error purpose: its Netscape certificate type (server) lacks client"]),
        ("r_any.pem", ["error ca.purpose: the CA 'CN=Any EKU CA' may only sign for anyExtendedKeyUsage"]),
        ("tw-oldfirst.pem", []),
        ("tw-newfirst.pem", []),
        ("nc-reply.pem", ["warning ca.critical: the CA 'C=FR, CN=NC CA' has a critical extension"]),
        ("pss.pem", ["warning signature.pss: it is signed with RSASSA-PSS"]),
        ("ca-false-pathlen.pem", ["warning extensions: ", "warning path-length: it is no CA (CA:FALSE), and still"]),
        (
            "other-subject.pem",
            [f"warning subject.changed: {name} is '{new}' in the certificate, and is" for name, new in
             {"C": "DE", "L": "Berlin", "O": "Other Company", "emailAddress": "else@other.example"}.items()],
        ),
    ],
)  # fmt: skip
def test_a_reply_is_judged(name: str, findings: list[str]) -> None:
    found = judged(name)
    assert len(found) == len(findings), found
    assert all(one.startswith(beginning) for one, beginning in zip(found, findings, strict=True)), found


def test_defaults_of_openssl_are_errors() -> None:
    parsed = csr.parse((CASES / "dflt.csr").read_bytes())
    found = {f.code: f.message for f in lint_csr(parsed, pki.GUIDE, pki.RULES, "MZP7654321")}
    assert "ST is still the template's: 'Some-State'" in found["subject.st.placeholder"]
    assert "O is still the template's: 'Internet Widgits Pty Ltd'" in found["subject.o.placeholder"]
