"""PEM is found in any text, and private keys are never decoded."""

from __future__ import annotations

from broker.pki import keys
from broker.pki.pem import blocks_in, scan
from tests.support import pki

KEY = keys.pem(pki.secret_of(pki.a_key())).reveal()


def test_private_key_is_not_decoded() -> None:
    (block,) = blocks_in(KEY)
    assert block.key is not None
    assert block.der == b""


def test_old_key_with_headers_is_found() -> None:
    old = (
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\n%%%\n-----END RSA PRIVATE KEY-----\n"
    )
    assert [b.key is not None for b in blocks_in(old)] == [True]


def test_text_outside_has_no_line_of_a_block() -> None:
    found = scan(f"before\n{KEY.decode()}between\n{KEY.decode()}after").text
    assert found.split() == ["before", "between", "after"]
