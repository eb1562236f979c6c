"""Replies are read in every format that partners send, and hostile ones are refused."""

from __future__ import annotations

import base64
import io
import random
import struct
import time
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.certificate import Certificate
from broker.model.fingerprint import format_fingerprint
from broker.model.secret import Secret
from broker.pki import certificates, chain, csr, der, keys
from broker.pki.certificate_fields import fingerprint_of
from broker.pki.chain import paths
from broker.pki.keys import pkcs12_bundle
from broker.pki.reply import ReplyParts, read_reply
from broker.pki.wrappings import LARGEST
from tests.support import pki

ROOT = pki.a_ca("Root")
MIDDLE = pki.a_ca("Middle", issuer=ROOT)
LEAF = pki.a_leaf(MIDDLE)
KEY = pki.secret_of(pki.a_key())
SPKI = keys.spki_of(KEY)
ALL = pki.pem(LEAF, MIDDLE.certificate, ROOT.certificate).encode()
CLIENT_ID = "1eebc2d5-5df3-459b-a624-20abfcf82530"


def a_zip(*members: bytes, method: int = zipfile.ZIP_DEFLATED, folder: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for number, member in enumerate(members):
            archive.writestr(f"{folder}file-{number}.txt", member)
    return file.getvalue()


def assert_whole(parts: ReplyParts) -> None:
    """The leaf and its path to the root."""
    assert chain.leaves(parts.certificates) == [LEAF]
    assert {a.subject for a in parts.authorities} == {"CN=Middle", "CN=Root"}
    assert parts.for_spki(SPKI).pem == pki.pem(LEAF, MIDDLE.certificate)


def _leaves(parts: ReplyParts) -> list[Certificate]:
    found = parts.certificates
    return [certificates.certificate_of(c, chain.intermediates(c, found)) for c in chain.leaves(found)]


@pytest.mark.parametrize(
    "data",
    [
        ALL,
        ALL.replace(b"\n", b"\r\n"),
        ALL.replace(b"\n", b"\n\n"),
        b"\xef\xbb\xbf" + ALL,
        ALL.decode().encode("utf-16"),
        b"Bag Attributes\n    friendlyName: \xe9\nsubject=/CN=x\n" + ALL + b"-- \r\nBest regards",
        pki.pem(ROOT.certificate, MIDDLE.certificate, LEAF).encode(),
        ALL + ALL,
        b"0 is how this text begins\n" + ALL,
        pkcs7.serialize_certificates([LEAF, MIDDLE.certificate, ROOT.certificate], Encoding.PEM),
        pkcs7.serialize_certificates([LEAF, MIDDLE.certificate, ROOT.certificate], Encoding.DER),
        a_zip(pki.der(LEAF), pki.der(ROOT.certificate), pki.pem(MIDDLE.certificate).encode()),
        a_zip(ALL, method=zipfile.ZIP_STORED),
        a_zip(ALL, folder="../../etc/"),
        a_zip(ALL, b"a note\n" * 2000),
    ],
    ids=[
        "pem", "crlf", "blank lines", "bom", "utf-16", "bag attributes", "root first", "twice", "zero", "p7 pem",
        "p7 der", "zip of der", "stored zip", "zip with bad paths", "zip with much text",
    ],
)  # fmt: skip
def test_a_reply_is_read_in_every_wrapping(data: bytes) -> None:
    assert_whole(read_reply(data))


def test_one_der_certificate_is_a_reply() -> None:
    assert read_reply(pki.der(LEAF)).for_spki(SPKI).pem == pki.pem(LEAF)


def test_crl2pkcs7_output_is_read(tmp_path: Path) -> None:
    (tmp_path / "all.pem").write_bytes(ALL)
    assert_whole(read_reply(pki.run("openssl", "crl2pkcs7", "-nocrl", "-certfile", tmp_path / "all.pem")))


@pytest.mark.parametrize(
    "text",
    [
        f"Your client_id is below.\nclient_id: {CLIENT_ID}\n",
        f"client id = {CLIENT_ID}",
        f'{{"clientId": "{CLIENT_ID}"}}',
        f"Client-ID:\n  {CLIENT_ID}\n",
    ],
)
def test_a_client_id_is_found_in_the_text(text: str) -> None:
    assert read_reply(text.encode()).client_ids == (CLIENT_ID,)
    assert read_reply(text.encode() + b"\n" + ALL).client_ids == (CLIENT_ID,)
    assert read_reply(a_zip(ALL, text.encode())).client_ids == (CLIENT_ID,)


def test_of_several_leaves_the_key_chooses() -> None:
    other = pki.a_leaf(MIDDLE, pki.a_key("other"), "MZP2")
    parts = read_reply(pki.pem(other, LEAF, MIDDLE.certificate).encode())
    assert len(chain.leaves(parts.certificates)) == 2
    assert parts.for_spki(SPKI).ref == fingerprint_of(LEAF)


def test_longer_lived_certificate_is_chosen() -> None:
    old = pki.a_leaf(MIDDLE, not_after=pki.NOW)
    assert read_reply(pki.pem(old, LEAF).encode()).for_spki(SPKI).ref == fingerprint_of(LEAF)


def test_ca_certificate_for_key_is_returned() -> None:
    found = pki.a_leaf(MIDDLE, is_ca=True)
    assert read_reply(pki.pem(found).encode()).for_spki(SPKI).ref == fingerprint_of(found)


def test_reply_without_key_names_its_leaves() -> None:
    other = pki.a_leaf(MIDDLE, pki.a_key("other"), "MZP2")
    with pytest.raises(RefusedError, match=r"no certificate for the key of this request .* it has: 'CN=MZP2'"):
        read_reply(pki.pem(other).encode()).for_spki(SPKI)


def test_a_reply_of_cas_alone_says_so() -> None:
    with pytest.raises(RefusedError, match="it has: none but CA certificates"):
        read_reply(ROOT.pem.encode()).for_spki(SPKI)


def test_ca_to_accept_is_the_top_of_the_path() -> None:
    parts = read_reply(ALL)
    top = parts.issuer_of(parts.for_spki(SPKI))
    assert top is not None
    assert top.subject == "CN=Root"
    assert parts.accepted(format_fingerprint(top.fingerprint)) == certificates.ca_set(ROOT.pem)


def test_a_leaf_alone_has_no_ca_to_accept() -> None:
    parts = read_reply(pki.der(LEAF))
    assert parts.issuer_of(parts.for_spki(SPKI)) is None


@pytest.mark.parametrize("fingerprint", ["ab" * 32, fingerprint_of(LEAF)], ids=["unknown", "of the leaf"])
def test_only_ca_in_the_reply_is_accepted(fingerprint: str) -> None:
    with pytest.raises(RefusedError, match="no CA in this reply has the fingerprint"):
        read_reply(ALL).accepted(fingerprint)


def test_private_key_is_reported_not_shown() -> None:
    secret = keys.pem(KEY).reveal()
    parts = read_reply(ALL + secret + secret.replace(b"PRIVATE", b"ENCRYPTED PRIVATE"))
    assert_whole(parts)
    assert [f.code for f in parts.findings] == ["reply.private-key"]
    assert secret.decode().splitlines()[5] not in repr(parts)


def test_the_request_sent_back_is_a_note() -> None:
    parts = read_reply(ALL + csr.build(KEY, pki.GOOD, pki.RULES).encode())
    assert [f.code for f in parts.findings] == ["file.stray"]


def test_damaged_file_in_a_zip_is_reported() -> None:
    parts = read_reply(a_zip(ALL, b"-----BEGIN CERTIFICATE-----\nMIIC"))
    assert_whole(parts)
    assert [f.code for f in parts.findings] == ["file.passed-over"]


def _trusted() -> bytes:
    return pki.run("openssl", "x509", "-trustout", "-addtrust", "clientAuth", stdin=pki.pem(LEAF).encode())


def _encrypted_zip() -> bytes:
    """A zip whose member says that it is encrypted: both headers carry the flag."""
    made = bytearray(a_zip(ALL))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", made, made.index(signature) + offset, 1)
    return bytes(made)


def _pkcs7_without_content() -> bytes:
    return bytes.fromhex("308180" + "06092a864886f70d010702" + "0473" + "00" * 115)


def _p12() -> bytes:
    return pkcs12_bundle(KEY, certificates.certificate(ALL).pem, Secret("passphrase")).reveal()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_encrypted_zip, "the zip file is encrypted"),
        (lambda: a_zip(b"\0" * 900_000), "more than 100 times its size"),
        (lambda: a_zip(*[random.Random(n).randbytes(600_000) for n in range(1)], bytes(600_000)), "more than 1048576"),
        (lambda: a_zip(*[b"x"] * 65), "the zip file has 65 files"),
        (lambda: a_zip(ALL, method=zipfile.ZIP_LZMA), "unsupported compression"),
        (KEY.reveal, "holds a private key"),
        (keys.pem(KEY).reveal, "holds a private key"),
        (lambda: b"\xfe\xed\xfe\xed\0\0\0\2", "an old Java key store"),
        (lambda: b"".join(pki.pem(pki.a_leaf(ROOT)).encode() for _ in range(33)), "more than 32 certificates"),
    ],
)
def test_unsupported_files_are_refused(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        read_reply(make())
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the reply is empty"),
        (b" \r\n", "the reply is empty"),
        (b"Dear customer,", "neither a certificate nor a client_id"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
        (b"x" * (LARGEST + 1), "it has 1048577 bytes"),
        (ALL[:700], "is cut off"),
        (pki.pem(LEAF).replace("MII", "M*I").encode(), "is not base64"),
        (pki.pem(LEAF).replace("MII", "MIJ").encode(), "cut off"),
        (pki.der(LEAF)[:-5], "is cut off"),
        (pki.der(LEAF) + b"xy", "2 stray bytes follow"),
        (_p12(), "PKCS#12 key store"),
        (a_zip(ALL)[:-30], "the zip file is damaged"),
        (a_zip(b"hello"), "neither a certificate nor a client_id"),
        (a_zip(ALL[:700]), "is cut off"),
        (csr.build(KEY, pki.GOOD, pki.RULES).encode(), "certificate signing request: your own"),
        (b"-----BEGIN CERTIFICATE-----" * 38_000, "more than 64 PEM blocks"),
        (b"-----BEGIN PKCS7-----\n" + b"MIIC" * 20 + b"\n-----END PKCS7-----", "cut off"),
        (_pkcs7_without_content(), "cut off"),
    ],
    ids=range(18),
)
def test_unusable_files_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_reply(data)
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [b"-----BEGIN " * 95_000, b"client_id" * 110_000, b"client id:" * 100_000, b"\x30\x82\xff\xff" * 250_000],
)
def test_a_megabyte_of_malice_costs_no_time(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BrokerError):
        read_reply(data)
    assert time.process_time() - started < 1


def _forged(subject: str, issuer: str, bits: int, exponent_bits: int, chance: random.Random) -> bytes:
    """A certificate with a made-up RSA key, and a made-up signature of a length that such a key could have made."""
    modulus, exponent = (chance.getrandbits(n) | 1 << n - 1 | 1 for n in (bits, exponent_bits))
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    made = x509.CertificateBuilder(
        pki.a_name(issuer), pki.a_name(subject), key, chance.getrandbits(60) + 1, pki.NOW, pki.NOW + timedelta(days=9)
    ).sign(pki.a_key(), hashes.SHA256())
    signed, algorithm, _ = der.children(der.only(pki.der(made)))
    signature = _tlv(0x03, b"\0\0" + chance.randbytes(bits // 8 - 1))
    return _tlv(0x30, signed.raw + algorithm.raw + signature)


def _tlv(tag: int, content: bytes) -> bytes:
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


@pytest.mark.parametrize(("bits", "exponent_bits"), [(3072, 3070), (16384, 64)])
def test_slow_keys_are_reported_and_not_used(bits: int, exponent_bits: int) -> None:
    """Two names that issue each other, sixteen certificates each: once 58 KB for 99 s of work."""
    chance = random.Random(1)
    ring = [_forged(*names, bits, exponent_bits, chance) for names in (("A", "B"), ("B", "A")) for _ in range(16)]
    started = time.process_time()
    parts = read_reply(a_zip(*ring))
    assert not chain.leaves(parts.certificates)
    assert len(parts.authorities) == 32
    for found in parts.certificates:
        list(paths(found, parts.certificates, [ROOT.certificate]))
    assert time.process_time() - started < 3
    assert {f.code for f in parts.findings} == {"reply.slow-key"}


def test_mutual_issuers_are_fast() -> None:
    key = pki.a_key("ring")
    ring = [pki.a_ca("A", key=key, issuer=pki.a_ca("A", key=key)).certificate for _ in range(32)]
    started = time.process_time()
    parts = read_reply(pki.pem(*ring).encode())
    for found in parts.certificates:
        assert not any(paths(found, parts.certificates, [ROOT.certificate]))
    assert time.process_time() - started < 3


def test_serial_below_one_is_read() -> None:
    """Without the library's warning, which has the names of its files."""
    octets = bytearray(pki.der(LEAF))
    octets[octets.index(b"\xa0\x03\x02\x01\x02\x02") + 7] = 0x81  # not 0xff: before another bit of 1 that is no DER
    parts = read_reply(bytes(octets))
    assert certificates.describe(parts.certificates[0]).serial.startswith("-")
    assert _leaves(parts)[0].serial.startswith("-")


def _mutated(seed: bytes, chance: random.Random) -> bytes:
    octets = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(octets))
        match chance.randrange(4):
            case 0:
                octets[at] = chance.randrange(256)
            case 1:
                del octets[at : at + chance.randint(1, 40)]
            case 2:
                octets[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                octets[at] ^= 1 << chance.randrange(8)
        octets = octets or bytearray(b"x")
    return bytes(octets)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # the library warns of odd serials and names
def test_mutations_raise_only_broker_errors() -> None:
    chance = random.Random(20260301)
    seeds = [
        ALL,
        pki.der(LEAF),
        pkcs7.serialize_certificates([LEAF, MIDDLE.certificate], Encoding.DER),
        a_zip(pki.der(LEAF), pki.der(ROOT.certificate)),
        a_zip(ALL, method=zipfile.ZIP_STORED),
    ]
    answered = 0
    for number in range(2000):
        try:
            parts = read_reply(_mutated(seeds[number % len(seeds)], chance))
            _ = (_leaves(parts), parts.authorities)
            _use(parts)
            answered += 1
        except BrokerError:
            continue
    assert 0 < answered < 2000


def _use(parts: ReplyParts) -> None:
    """Use the parts as an import does."""
    from broker.pki.verification import Expected, verify_certificate

    for leaf in _leaves(parts):
        ca_set = certificates.ca_set(ROOT.pem + MIDDLE.pem)
        verify_certificate(leaf, Expected(pki.GUIDE, pki.LOGIN, ca_set, SPKI, pki.GOOD), pki.NOW)


def test_der_names_can_be_any_bytes() -> None:
    """A Teletex name that is no UTF-8, which the library itself cannot decode."""
    octets = bytearray(pki.der(LEAF))
    at = bytes(octets).index("Société".encode())
    octets[at - 2] = 0x14
    octets[at : at + 5] = b"\xff\xfe\x1b[2"
    leaf = _leaves(read_reply(bytes(octets)))[0]
    assert "\x1b" not in leaf.subject
    assert "\\x1b[2" in leaf.subject
    assert isinstance(x509.load_der_x509_certificate(bytes(octets)), x509.Certificate)
    assert base64.b64decode(leaf.pem.split("-----")[2])
