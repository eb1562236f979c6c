"""Private keys are made to the rules, and never shown."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path

import pytest

from broker.errors import InputError
from broker.model.secret import Secret
from broker.model.subject import KeyRules
from broker.pki import keys
from tests.support import pki

KEY = pki.secret_of(pki.a_key())


def test_a_generated_key_fits_the_rules() -> None:
    key = keys.load(keys.generate(KeyRules(bits=2048)))
    assert (key.key_size, key.public_key().public_numbers().e) == (2048, 65537)


def test_spki_equals_openssls(tmp_path: Path) -> None:
    public = pki.run("openssl", "pkey", "-in", pki.key_file(tmp_path), "-pubout", "-outform", "DER")
    assert keys.spki_of(KEY) == hashlib.sha256(public).hexdigest()


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
        keys.load(Secret(octets))
    assert "planted" not in "".join(traceback.format_exception(caught.value))


def test_openssl_reads_the_pem() -> None:
    assert b"valid" in pki.run("openssl", "pkey", "-check", "-noout", stdin=keys.pem(KEY).reveal())
