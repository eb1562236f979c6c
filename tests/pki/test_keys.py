"""Private keys are made to the rules, checked once, and never shown."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.errors import InputError
from broker.model.secret import Secret
from broker.model.subject import KeyRules
from broker.pki import keys
from tests.support import pki

KEY = pki.secret_of(pki.a_key())


def test_a_generated_key_fits_the_rules() -> None:
    key = keys.load(keys.generate(KeyRules(bits=2048)))
    assert (key.key_size, key.public_key().public_numbers().e) == (2048, 65537)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (KeyRules(algorithm="ec"), "the broker makes no 'ec' keys"),
        (KeyRules(bits=1024), "makes no keys of 1024 bits"),
        (KeyRules(bits=100_000), "makes no keys of 100000 bits"),
    ],
)
def test_unsupported_rules_are_refused(rules: KeyRules, words: str) -> None:
    with pytest.raises(InputError, match=words):
        keys.generate(rules)


def test_spki_equals_openssls(tmp_path: Path) -> None:
    public = pki.run("openssl", "pkey", "-in", pki.key_file(tmp_path), "-pubout", "-outform", "DER")
    assert keys.spki_of(KEY) == hashlib.sha256(public).hexdigest()


def test_a_good_key_passes_the_check() -> None:
    keys.check(KEY)


def test_only_check_finds_inconsistent_keys() -> None:
    """`load` trusts its input, so an import calls `check`."""
    damaged = _with_another_exponent()
    keys.load(damaged)
    with pytest.raises(InputError, match="cannot be used"):
        keys.check(damaged)


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", "the private key cannot be used"),
        (b"planted-secret" * 20, "the private key cannot be used"),
        (pki.secret_of(pki.an_ec_key()).reveal(), "the private key is not RSA"),
    ],
)
def test_other_keys_are_refused_unshown(octets: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        keys.check(Secret(octets))
    assert "planted" not in "".join(traceback.format_exception(caught.value))


def test_openssl_reads_the_pem() -> None:
    assert b"valid" in pki.run("openssl", "pkey", "-check", "-noout", stdin=keys.pem(KEY).reveal())


def _with_another_exponent() -> Secret[bytes]:
    n = pki.a_key().private_numbers()
    numbers = rsa.RSAPrivateNumbers(n.p, n.q, n.d + 2, n.dmp1, n.dmq1, n.iqmp, n.public_numbers)
    return pki.secret_of(numbers.private_key(unsafe_skip_rsa_key_validation=True))
