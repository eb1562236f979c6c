"""All vectors of `cryptography` are read or refused, and each RSA key that the library reads is read."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key, pkcs12

from broker.model.secret import Secret
from broker.pki import keys
from broker.pki.gathered import Piece, gather
from tests.fuzz.bounds import READERS, readers_apart

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

pytest.importorskip("cryptography_vectors", reason="make fuzz installs the vectors of cryptography")
VECTORS: Final = Path(str(files("cryptography_vectors")))
FOLDERS: Final = sorted(str(path.relative_to(VECTORS)) for path in VECTORS.rglob("*") if path.is_dir())
LARGEST: Final = 1024 * 1024
_SERIALIZED: Final = ("PKCS8", "PEM_Serialization", "DER_Serialization", "Traditional_OpenSSL_Serialization")
OF_KEYS: Final = (*(f"asymmetric/{name}" for name in _SERIALIZED), "x509/PKITS_data/pkcs12")
PASSPHRASES: Final = (None, "password", "123456", "a123456", "baz", "cryptography", "foobar", "asdf")


def in_folder(folder: str) -> Iterator[Path]:
    return (p for p in sorted((VECTORS / folder).iterdir()) if p.is_file() and p.stat().st_size <= LARGEST)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_is_read_or_refused(folder: str) -> None:
    with readers_apart("ignore") as read:
        for path in in_folder(folder):
            for name in READERS:
                assert read(name, path.read_bytes()).isprintable(), path


@pytest.mark.parametrize("folder", OF_KEYS)
def test_each_rsa_key_is_read(folder: str) -> None:
    tried = 0
    for path in in_folder(folder):
        data = path.read_bytes()
        for passphrase in PASSPHRASES:
            expected = by_the_library(data, passphrase)
            if expected is not None:
                secret = Secret(passphrase or "")
                found = gather([Piece(path.name, data)], {}, lambda _, secret=secret: secret).keys  # type: ignore[misc]
                assert expected in [keys.load(key.key).public_key() for key in found], path
                tried += 1
                break
    assert tried


def by_the_library(data: bytes, passphrase: str | None) -> rsa.RSAPublicKey | None:
    secret = passphrase.encode() if passphrase else None
    for load in (load_pem_private_key, load_der_private_key, lambda *given: pkcs12.load_pkcs12(*given).key):
        try:
            key = load(data, secret)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        if isinstance(key, rsa.RSAPrivateKey):
            return key.public_key()
    return None
