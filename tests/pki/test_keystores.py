"""openssl and Java read the key stores and trust stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import InputError, RefusedError
from broker.model.secret import Secret
from broker.pki import certificates, keys
from broker.pki.keys import pkcs12_bundle, truststore_p12
from tests.support import pki

pytestmark = pytest.mark.slow

ROOT = pki.a_ca("Root")
MIDDLE = pki.a_ca("Middle", issuer=ROOT)
KEY = pki.secret_of(pki.a_key())
FOUND = certificates.certificate(pki.pem(pki.a_leaf(MIDDLE), MIDDLE.certificate))
PASS = Secret("correct horse")


def test_openssl_opens_the_bundle(tmp_path: Path) -> None:
    file = tmp_path / "store.p12"
    file.write_bytes(pkcs12_bundle(KEY, FOUND.pem, PASS).reveal())
    command = ["openssl", "pkcs12", "-in", str(file), "-nodes", "-passin", f"pass:{PASS.reveal()}"]
    printed = pki.run(*command)
    assert keys.pem(KEY).reveal().splitlines()[3] in printed
    subjects = {certificates.describe(c).subject for c in certificates.load(printed)}
    assert subjects == {FOUND.subject, "CN=Middle"}


def test_bundle_uses_modern_encryption(tmp_path: Path) -> None:
    file = tmp_path / "store.p12"
    file.write_bytes(pkcs12_bundle(KEY, FOUND.pem, PASS).reveal())
    printed = pki.run(
        "sh", "-c", f"openssl pkcs12 -in {file} -info -noout -passin pass:'{PASS.reveal()}' 2>&1"
    ).decode()
    assert "MAC: sha256" in printed
    assert printed.count("AES-256-CBC, Iteration 20000") == 2


@pytest.mark.peer("keytool")
def test_java_opens_the_bundle(tmp_path: Path) -> None:
    file = tmp_path / "store.p12"
    file.write_bytes(pkcs12_bundle(KEY, FOUND.pem, PASS).reveal())
    printed = pki.run("keytool", "-list", "-v", "-keystore", file, "-storepass", PASS.reveal()).decode()
    assert "Your keystore contains 1 entry" in printed
    assert "Entry type: PrivateKeyEntry" in printed
    assert "Certificate chain length: 2" in printed
    assert "Alias name: credential" in printed


@pytest.mark.peer("keytool")
def test_java_trusts_the_trust_store(tmp_path: Path) -> None:
    file = tmp_path / "trust.p12"
    both = certificates.ca_set(ROOT.pem + pki.a_ca("Other").pem)
    file.write_bytes(truststore_p12(both.pem, PASS))
    printed = pki.run("keytool", "-list", "-keystore", file, "-storepass", PASS.reveal()).decode()
    assert printed.count("trustedCertEntry") == 2


@pytest.mark.parametrize("make", [lambda p: pkcs12_bundle(KEY, FOUND.pem, p), lambda p: truststore_p12(ROOT.pem, p)])
def test_an_empty_passphrase_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InputError, match="the passphrase is empty"):
        make(Secret(""))


def test_other_certificates_key_is_refused() -> None:
    with pytest.raises(RefusedError, match="the private key is not this certificate's"):
        pkcs12_bundle(pki.secret_of(pki.a_key("other")), FOUND.pem, PASS)
