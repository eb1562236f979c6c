"""Pieces of a set from several places: each thing once, where it lies, and what is of no use is named."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from broker.errors import InputError
from broker.model.secret import Secret
from broker.pki.gathered import Gathered, Piece, gather
from broker.pki.material import PassphraseError
from tests.support.outside import zipped
from tests.support.partner import a_csr, key_pem

KEY = rsa.generate_private_key(65537, 2048)
PEM = key_pem(KEY)
CSR = a_csr(KEY)


def found(
    pieces: Mapping[str, bytes], names: Mapping[str, str] | None = None, passphrase: str | None = None
) -> Gathered:
    made = [Piece(place, data, place, f"shred -u {place}") for place, data in pieces.items()]

    def unlock(place: str) -> Secret[str]:
        if passphrase is None:
            raise PassphraseError(f"{place} is encrypted")
        return Secret(passphrase)

    return gather(made, names or {}, unlock)


def encrypted() -> bytes:
    return KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))


def test_the_same_key_twice_is_one() -> None:
    holdings = found({"one": PEM, "two": PEM, "three.zip": zipped({"a/tls.key": PEM, "b/x.csr": CSR})})
    assert [key.file for key in holdings.keys] == ["one"]
    assert [place for _, place in holdings.requests] == ["three.zip: b/x.csr"]
    assert set(holdings.places) == {"one", "two", "three.zip"}


def test_texts_have_names() -> None:
    holdings = found({"username": b"MZP1\r\n", "password.txt": b"pa ss\n", "Client-ID.txt": b"1234-abcd"})
    texts = {kind: secret.reveal() for kind, (secret, _) in holdings.texts.items()}
    assert (texts, holdings.client_ids) == ({"login": "MZP1", "password": "pa ss"}, ["1234-abcd"])
    assert holdings.places == {"password.txt": "shred -u password.txt"}


@pytest.mark.parametrize("text", [b"", b"\n", b"a\nb", b"\xff", b"a\x1b"])
def test_a_text_is_one_line(text: bytes) -> None:
    with pytest.raises(InputError, match="holds no password"):
        found({"password": text})


def test_two_values_of_one_thing_are_refused() -> None:
    with pytest.raises(InputError, match="hold different values of the login"):
        found({"login": b"MZP1", "username": b"MZP2"})


def test_a_map_takes_only_its_fields() -> None:
    document = b'{"k": %b, "p": "%b", "q": "x"}' % (
        base64.b64encode(PEM).join([b'"', b'"']),
        base64.b64encode(b"secret"),
    )
    holdings = found({"set.json": document}, {"tls.key": "k", "password": "base64:p"})
    assert [key.file for key in holdings.keys] == ["set.json: k"]
    assert holdings.texts["password"][0].reveal() == "secret"
    assert not holdings.findings


def test_what_is_of_no_use_is_named() -> None:
    holdings = found({"set.zip": zipped({"readme.txt": b"hello", "tls.key": PEM})})
    assert [(f.code, "set.zip: readme.txt" in f.message) for f in holdings.findings] == [("import.unused", True)]
    with pytest.raises(InputError, match="holds no private key"):
        found({"readme.txt": b"hello"})


def test_damaged_files_of_an_archive_are_named() -> None:
    inner = zipped({"old.key": PEM})[:-30]
    holdings = found({"set.zip": zipped({"x.json": b"{", "inner.zip": inner, "tls.key": PEM})})
    assert [key.file for key in holdings.keys] == ["set.zip: tls.key"]
    assert [(f.code, f.message.split("'")[1]) for f in holdings.findings] == [
        ("import.unused", "set.zip: x.json"),
        ("file.passed-over", "set.zip: inner.zip"),
    ]


def test_base64_of_anything_is_read() -> None:
    """A KV field may hold a key with bag attributes before it, or a whole zip."""
    for data in (b"Bag Attributes\n  friendlyName: x\n" + PEM, zipped({"tls.key": PEM})):
        assert len(found({"field": base64.encodebytes(data)}).keys) == 1


def test_a_passphrase_is_asked_if_needed() -> None:
    assert len(found({"a": PEM}, passphrase="never").keys) == 1
    assert len(found({"a": encrypted()}, passphrase="open").keys) == 1
    with pytest.raises(PassphraseError, match="is wrong"):
        found({"a": encrypted()}, passphrase="other")
    with pytest.raises(PassphraseError, match="a is encrypted"):
        found({"a": encrypted()})


def test_a_map_needs_a_document_and_a_key() -> None:
    with pytest.raises(InputError, match="no document with named values"):
        found({"a": PEM}, {"tls.key": "k"})
    with pytest.raises(InputError, match=r"set\.json: k holds no private key"):
        found({"set.json": b'{"k": "%b"}' % base64.b64encode(CSR)}, {"tls.key": "k"})
