"""The partner's guide, its keytool way and its openssl way, with the real programs, brought into the vault."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.cli_harness import CliHarness
from tests.support.system import PASSWORD

pytestmark = pytest.mark.slow

PASSPHRASE: Final = "of-the-store"
GOOD: Final = (
    "C=FR, ST=Ile-de-France, L=Paris, O=Exemple, OU=Programs Partners, CN=MZP0000001, email=api@exemple.example"
)
TRAPPED: Final = "C=FR, L=Paris, O=Exemple, OU=Programs Partner, CN=MZP0000001, email=api@exemple.example"
OPENSSL: Final = """
[req]
distinguished_name = dn
prompt = no
[dn]
C = FR
ST = Ile-de-France
L = Paris
O = Exemple
OU = Programs Partners
CN = MZP0000001
emailAddress = api@exemple.example
"""


@pytest.fixture
def here(harness: CliHarness) -> Path:
    """The directory where the commands of the guide are typed."""
    harness.put("empty")
    (harness.home / "passphrase").write_text(PASSPHRASE)
    (harness.home / "password").write_text(PASSWORD)
    return harness.home


def typed(here: Path, *words: str) -> None:
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def keytool(here: Path, *words: str) -> None:
    typed(here, "keytool", *words, "-keystore", "mzp.jks", "-storepass", PASSPHRASE)


def made_with_keytool(here: Path, name: str) -> None:
    keys = ["-keyalg", "RSA", "-keysize", "2048", "-sigalg", "SHA256withRSA"]
    keytool(here, "-genkeypair", "-alias", "mzp", *keys, "-dname", name)
    keytool(here, "-certreq", "-alias", "mzp", "-file", "mzp.csr")


def new(harness: CliHarness) -> str:
    return f"--environment stand-in --base-url {harness.partner.api_url} --yes --password-file password -o json"


def accepting(harness: CliHarness) -> str:
    return " ".join(harness.saved.system.accepting())


def adopt_and_go_on(harness: CliHarness, here: Path, key: str, csr: str) -> list[str]:
    """Adopt key and CSR, let the desk sign, import its answer and promote; return the codes of what was found."""
    adopting = f"account import acme --csr {csr} --key {key} --passphrase-file passphrase {new(harness)}"
    done = harness.ok(adopting).json
    assert (done["new"], done["generation"]) == (True, None)
    sent = (here / csr).read_bytes()
    reply = harness.partner.sign(sent)
    (here / "answer.zip").write_bytes(reply.zip())
    harness.ok(f"csr submit acme --sent-at {harness.account.created_at:%Y-%m-%d}")
    harness.ok(f"app add acme/reporting --client-id {reply.client_id}")
    found = harness.ok(f"cert import acme answer.zip {accepting(harness)} -o json").json
    assert found["generation"] == 1
    assert "certificate.subject.changed" not in [finding["code"] for finding in found["findings"]]
    harness.ok("rotation promote acme")
    assert harness.ok(adopting).json["steps"] == []
    return [finding["code"] for finding in done["findings"]]


@pytest.mark.peer("keytool")
def test_the_keytool_way_ends_in_a_current_set(harness: CliHarness, here: Path) -> None:
    made_with_keytool(here, GOOD)
    assert b"BEGIN NEW CERTIFICATE REQUEST" in (here / "mzp.csr").read_bytes()
    codes = adopt_and_go_on(harness, here, "mzp.jks", "mzp.csr")
    assert {"subject.reversed", "import.self-signed"} <= set(codes)
    assert str(harness.account.subject).startswith("C=FR, ST=Ile-de-France, L=Paris, O=Exemple, OU=Programs Partners")
    assert harness.account.requests[0].imported


@pytest.mark.peer("openssl")
def test_the_openssl_way_ends_in_a_current_set(harness: CliHarness, here: Path) -> None:
    (here / "mzp.cnf").write_text(OPENSSL)
    making = ["req", "-new", "-newkey", "rsa:2048", "-sha256", "-config", "mzp.cnf"]
    typed(here, "openssl", *making, "-keyout", "mzp.key", "-out", "mzp.csr", "-passout", "file:passphrase")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (here / "mzp.key").read_bytes()
    assert adopt_and_go_on(harness, here, "mzp.key", "mzp.csr") == []


@pytest.mark.peer("keytool")
def test_the_traps_of_the_guide_are_named(harness: CliHarness, here: Path) -> None:
    made_with_keytool(here, TRAPPED)
    adopting = f"account import acme --csr mzp.csr --key mzp.jks --passphrase-file passphrase {new(harness)} --dry-run"
    findings = {f["code"]: f for f in harness.ok(adopting).json["findings"]}
    assert "Programs Partners" in findings["subject.ou.wrong"]["message"] + findings["subject.ou.wrong"]["hint"]
    assert {"subject.reversed", "subject.st.missing"} <= set(findings)
    assert {f["severity"] for f in findings.values()} <= {"warning", "note"}


@pytest.mark.peer("keytool")
def test_a_key_store_with_its_answer_is_a_set(harness: CliHarness, here: Path) -> None:
    """As a team has it today: keytool took the partner's answer, and the store is named .jks."""
    made_with_keytool(here, GOOD)
    reply = harness.partner.sign((here / "mzp.csr").read_bytes())
    for name, pem in (("ca", harness.partner.authorities.issuing[-1].pem), ("mzp", reply.certificate)):
        (here / f"{name}.pem").write_text(pem)
        keytool(here, "-importcert", "-noprompt", "-alias", name, "-file", f"{name}.pem")
    (here / "server.pem").write_text(harness.partner.authorities.server.pem)
    issuing = harness.partner.described()["issuing_ca_sha256"]
    done = harness.ok(
        f"account import acme mzp.jks --passphrase-file passphrase --client-id-for reporting={reply.client_id} "
        f"--accept-ca {issuing} --server-ca server.pem {new(harness)}"
    ).json
    assert (done["generation"], done["stage"]) == (1, "current")
