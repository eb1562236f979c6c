"""PEM is found in any text, and private keys are never decoded."""

from __future__ import annotations

from broker.pki import keys
from broker.pki.pem import blocks_and_text
from tests.support import pki

KEY = keys.pem(pki.secret_of(pki.a_key())).reveal()


def test_private_key_is_not_decoded() -> None:
    (block,), _ = blocks_and_text(KEY)
    assert block.is_private_key
    assert block.der == b""


def test_old_key_with_headers_is_found() -> None:
    old = (
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\n%%%\n-----END RSA PRIVATE KEY-----\n"
    )
    assert [b.is_private_key for b in blocks_and_text(old)[0]] == [True]


def test_text_outside_has_no_line_of_a_block() -> None:
    _, found = blocks_and_text(b"before\n" + KEY + b"between\n" + KEY + b"after")
    assert found.split() == ["before", "between", "after"]
