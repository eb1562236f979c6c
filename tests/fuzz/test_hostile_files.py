"""Files made to hurt end in a result or in our own error: in time, in memory, without a write or a connection."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.pki.names import shown
from tests.fuzz.bounds import PROFILE, READERS, Read, readers_apart
from tests.support import pki

MEGA: Final = 1024 * 1024
LEAF: Final = pki.a_leaf(pki.a_ca("Root"))
PEM: Final = pki.pem(LEAF).encode()
HEAD: Final = b"From: a@b.example\r\nTo: c@d.example\r\nMIME-Version: 1.0\r\n"


def a_zip(*members: tuple[str, bytes], level: int = 9) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def nested_zips() -> bytes:
    """Sixteen zips in each of sixteen zips, five deep: a million files at the bottom."""
    data = a_zip(("x", bytes(16 * 1024)))
    for _ in range(5):
        data = a_zip(*((f"{n}.zip", data) for n in range(16)))
    return data


def overlapping_zip() -> bytes:
    """A thousand names for one member (D. Fifield, "A better zip bomb")."""
    one = a_zip(("x", PEM * 400))
    at = one.index(b"PK\1\2")
    end = one.index(b"PK\5\6")
    directory = one[at:end]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(directory) * 1000, at, 0)
    return one[:at] + directory * 1000 + tail


def lying_zip() -> bytes:
    """A member that says that it is empty."""
    data = bytearray(a_zip(("x", bytes(900_000))))
    struct.pack_into("<L", data, data.index(b"PK\1\2") + 24, 0)
    return bytes(data)


def in_multiparts(depth: int) -> bytes:
    parts = (b'--b%d\nContent-Type: multipart/mixed; boundary="b%d"\n\n' % (n, n + 1) for n in range(depth))
    return HEAD + b'Content-Type: multipart/mixed; boundary="b0"\n\n' + b"".join(parts) + b"x\n" * 200_000


def many_parts(count: int) -> bytes:
    part = b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * count + b"--b--\r\n"


def nested_der(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x30\x83" + len(data).to_bytes(3, "big") + data
    return data


def armoured(structure: bytes, label: bytes = b"CERTIFICATE") -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(structure), label)


def of_rounds(algorithm: str) -> bytes:
    key = pki.a_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = pki.run("openssl", "pkcs8", "-topk8", *algorithm.split(), "-passout", "pass:x", "-outform", "DER", stdin=key)
    return made.replace(b"\x02\x03\x0f\x42\x3f", b"\x02\x03\x7f\xff\xff").replace(
        b"\x02\x02\x40\x00", b"\x02\x02\x7f\xff"
    )


HOSTILE: Final[dict[str, Callable[[], bytes]]] = {
    "nested zips": nested_zips,
    "overlapping zip": overlapping_zip,
    "lying zip": lying_zip,
    "zip of zeros": lambda: a_zip(*((f"{n}", bytes(MEGA)) for n in range(60))),
    "zip of names": lambda: a_zip(*((f"{n}", b"") for n in range(20_000)), level=0),
    "zip with paths": lambda: a_zip(*((n, PEM) for n in ("../../x", "/etc/x", "C:\\x", "a\0b", "\x1b[2J", "con", "."))),
    "zip cut off": lambda: a_zip(("x", PEM))[:-9],
    "zip header alone": lambda: b"PK\3\4" * (MEGA // 4),
    "17 MiB of zeros": lambda: bytes(17 * MEGA),
    "1 MiB of zeros": lambda: bytes(MEGA),
    "tar of zeros": lambda: b"x".ljust(257, b"\0") + b"ustar" + bytes(MEGA),
    "multiparts in each other": lambda: in_multiparts(600),
    "a few multiparts": lambda: in_multiparts(35),
    "10,000 parts": lambda: many_parts(10_000),
    "200 parts": lambda: many_parts(200),
    "forwarded 30,000 times": lambda: HEAD + b"Content-Type: message/rfc822\n\n" * 30_000,
    "forwarded 30 times": lambda: HEAD + b"Content-Type: message/rfc822\n\n" * 30 + PEM,
    "a mail of headers": lambda: HEAD + b"X: y\n" * 200_000,
    "a mail of one header": lambda: HEAD + b"X:" + b" y" * 500_000 + b"\n\n",
    "a mail of parameters": lambda: HEAD + b"Content-Type: text/plain" + b'; a*0="x"' * 60_000 + b"\n\nx",
    "a mail of quotes": lambda: HEAD + b"Content-Type: text/plain; " + b'"\\' * 400_000 + b"\n\nx",
    "a mail of boundaries": lambda: HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 250_000,
    "odd character sets": lambda: b"".join(
        HEAD + b"Content-Type: text/plain; charset=" + name + b"\n\n\xff\xfe\n\nFrom x Thu 10:00 2026\n"
        for name in (b"idna", b"punycode", b"utf-7", b"hex", b"zlib", b"unicode_escape", b"\xff", b"rot13", b"utf-32")
    ),
    "a mailbox of 100,000": lambda: b"From a@b Thu Nov 26 10:00:00 2026\n\n" * 100_000,
    "a mailbox without a mail": lambda: b"From a@b Thu Nov 26 10:00:00 2026\n",
    "a body of bad base64": lambda: HEAD + b"Content-Transfer-Encoding: base64\n\n" + b"=A" * 500_000,
    "a body of uuencode": lambda: HEAD + b"Content-Transfer-Encoding: uuencode\n\nbegin 666 x\n" + b"M" * MEGA,
    "HTML of tags": lambda: HEAD + b"Content-Type: text/html\n\n" + b"<" * MEGA,
    "HTML of scripts": lambda: b"<html>" + b"<script" * 150_000,
    "HTML of comments": lambda: b"<html>" + b"<!--" * 250_000,
    "HTML of entities": lambda: b"<html>" + b"&#x" * 300_000,
    "HTML of links": lambda: HEAD + b"Content-Type: text/html\n\n" + b"<a href='http://" * 60_000,
    "nested DER": lambda: nested_der(60_000),
    "nested BER": lambda: b"\x30\x80" * (MEGA // 2),
    "BER of strings": lambda: b"\x24\x80" * (MEGA // 2),
    "DER of nothing": lambda: b"\x30\x83\x0f\xff\x00" + b"\x05\x00" * 524_160,
    "DER of sequences": lambda: b"\x30\x83\x0f\xff\x00" + b"\x30\x00" * 524_160,
    "DER of lies": lambda: b"\x30\x82\xff\xff" * (MEGA // 4),
    "long tags": lambda: b"\x30\x82\x10\x00" + b"\x3f\xff" * 2048,
    "nested DER in PEM": lambda: armoured(nested_der(60_000)),
    "PEM of BEGIN": lambda: b"-----BEGIN CERTIFICATE-----\n" * 37_000,
    "PEM of END": lambda: b"-----END CERTIFICATE-----\n" * 40_000,
    "PEM on one line": lambda: b"-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----" * 19_000,
    "dashes": lambda: b"-" * MEGA,
    "typographic dashes": lambda: "\u2014".encode() * 340_000,
    "labels": lambda: b"-----BEGIN A" + b" A" * 500_000,
    "base64 of nothing": lambda: b"MIIC" * 260_000,
    "short base64": lambda: (b"MIIC" + b"A" * 90 + b"!") * 11_000,
    "structures without armour": lambda: base64.b64encode(pki.der(LEAF)) * 700,
    "encoded PEM": lambda: b"LS0tLS1CRUdJTi" * 70_000,
    "short encoded PEM": lambda: (b"LS0tLS1CRUdJTi" + b"A" * 90 + b"!") * 9_000,
    "backslashes": lambda: b"\\n\\/\\u002B" * 100_000,
    "a block of tags": lambda: armoured(b"").replace(b"-----END", b"<" * 900_000 + b"\n-----END"),
    "a block of quotes": lambda: armoured(b"").replace(b"-----END", b"> |*" * 250_000 + b"\n-----END"),
    "a block of numbers": lambda: armoured(b"").replace(b"-----END", b"1: \n" * 250_000 + b"\n-----END"),
    "a block of headers": lambda: armoured(b"").replace(b"-----END", b"A:\n" * 300_000 + b"\n-----END"),
    "client_ids": lambda: b"client_id: " * 95_000,
    "headers of no mail": lambda: b"Subject:\n" * 110_000,
    "UTF-16 of PEM": lambda: (PEM * 300).decode().encode("utf-16-le"),
    "UTF-16 cut off": lambda: PEM.decode().encode("utf-16")[:-1],
    "lone surrogates": lambda: b"\xff\xfe" + b"\x00\xd8" * 500_000,
    "NULs in PEM": lambda: PEM.replace(b"\n", b"\0\n"),
    "terminal escapes": lambda: b"\x1b]0;x\x07\x1b[2J\r" * 70_000 + PEM,
    "bidi": lambda: ("\u202e\u2066\u200f" * 100_000).encode() + PEM,
    "a key of two billion rounds": lambda: of_rounds("-v2 aes256 -iter 999999"),
    "a key of scrypt": lambda: of_rounds("-scrypt"),
}
TEXTS: Final[dict[str, str]] = {
    "nested arrays": "name = " + "[" * 20_000,
    "nested tables": "a = " + "{a = " * 20_000,
    "a dotted key": ".".join("a" * 40_000) + " = 1",
    "a table of dots": f"[{'.'.join('a' * 40_000)}]",
    "many tables": "".join(f"[t{n}]\n" for n in range(40_000)),
    "a long number": "name = " + "9" * 500_000,
    "a long string": f'name = "{"x" * 900_000}"',
    "escapes": f'name = "{chr(92)}u001b[2J{chr(92)}u202e"',
    "dates": "name = 9999-99-99T99:99:99Z",
    "infinities": "name = inf\nversion = nan",
    "NULs": "name = '\0'",
    "surrogates": 'name = "\\ud800"',
}


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    with readers_apart() as made:
        yield made


@pytest.mark.peer("openssl")
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.fuzz] * (n % 3 > 0)) for n, k in enumerate(HOSTILE)]
)
def test_it_ends_within_bounds(kind: str, read: Read) -> None:
    data = HOSTILE[kind]()
    for name in READERS:
        said = read(name, data)
        assert said.isprintable(), name
        assert len(said) < 60_000, name


@pytest.mark.parametrize("kind", TEXTS)
def test_a_hostile_profile_is_refused(kind: str, read: Read) -> None:
    said = read(PROFILE, TEXTS[kind].encode())
    assert said.isprintable()
    assert len(said) < 2000


@pytest.mark.parametrize("value", ["\x1b[31m", "\u202etxt.exe", "a\nb", "\x9b2J", "\ud800", "\u2028", "\u200b"])
def test_what_a_terminal_obeys_is_escaped(value: str) -> None:
    assert shown(value).isprintable()
