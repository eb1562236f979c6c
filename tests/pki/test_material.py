"""Keys as openssl and keytool write them are read by content; every other file is named."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.errors import InputError, RefusedError
from broker.model.secret import Secret
from broker.pki import der, keys
from broker.pki.gathered import Gathered, Piece, gather
from broker.pki.material import PassphraseError, choose_key
from tests.support import pki
from tests.support.depth import sampled

pytestmark = pytest.mark.peer("openssl")

PASS = "correct horse"
KEY = pki.secret_of(pki.a_key())
SPKI = keys.spki_of(KEY)
LEAF = pki.a_leaf(pki.a_ca("Root"))
LEGACY = ("-provider", "legacy", "-provider", "default")

PKCS8 = (
    ("-v2", "des3"),  # what the partner's guide writes with openssl 1.1 and later
    *(("-v2", cipher) for cipher in ("aes128", "aes-192-cbc", "aes256", "camellia256", "aria256", "rc2")),
    *(("-v2", "aes256", "-v2prf", f"hmacWithSHA{bits}") for bits in (1, 224, 384, 512)),
    ("-scrypt",),
    *(("-v1", f"PBE-{scheme}") for scheme in ("MD5-DES", "SHA1-DES", "MD5-RC2-64", "SHA1-RC2-64", "SHA1-3DES")),
    *(("-v1", f"PBE-SHA1-{cipher}") for cipher in ("2DES", "RC2-40", "RC2-128", "RC4-40", "RC4-128")),
)
DEK = ("des", "des3", "aes128", "aes192", "aes256", "camellia128", "seed")
STORES = {
    "modern": (),
    "legacy RC2 and 3DES": ("-legacy",),
    "all 3DES": ("-legacy", "-certpbe", "PBE-SHA1-3DES"),
    "AES-128, SHA-1": ("-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC", "-macalg", "sha1"),
    "nothing encrypted": ("-keypbe", "NONE", "-certpbe", "NONE"),
    "no MAC": ("-nomac",),
}


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    return pki.run("openssl", *arguments, stdin=stdin)


def plain(form: Encoding = Encoding.PEM, kind: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return pki.a_key().private_bytes(form, kind, NoEncryption())


def store(*options: str, passphrase: str = PASS) -> bytes:
    both = plain() + pki.pem(LEAF).encode()
    return openssl("pkcs12", "-export", "-passout", f"pass:{passphrase}", *options, stdin=both)


def encrypted(*options: str) -> bytes:
    return openssl("pkcs8", "-topk8", "-passout", f"pass:{PASS}", *options, *LEGACY, stdin=plain())


def read(data: bytes, passphrase: str | None = None, name: str = "found.bin") -> Gathered:
    def unlock(file: str) -> Secret[str]:
        if passphrase is None:
            raise PassphraseError(f"{file} is encrypted")
        return Secret(passphrase)

    return gather([Piece(name, data)], {}, unlock)


def certificates_of(found: Gathered) -> list[x509.Certificate]:
    return [c.certificate for c in found.certificates]


def assert_is_the_key(found: Gathered) -> None:
    assert [key.spki for key in found.keys] == [SPKI]
    assert found.keys[0].key == KEY


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key store with two entries, as keytool of the guide makes it: called .jks, and PKCS#12."""
    path = tmp_path_factory.mktemp("keytool") / "two.jks"
    for alias in ("first", "second"):
        command: list[str | Path] = [
            "keytool",
            "-genkeypair",
            "-keystore",
            path,
            "-storepass",
            "changeit",
            "-alias",
            alias,
        ]
        pki.run(*command, "-keyalg", "RSA", "-keysize", "2048", "-dname", f"CN=MZP-{alias}")
    return path


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("kind", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_plain_key_is_read(form: Encoding, kind: PrivateFormat) -> None:
    assert_is_the_key(read(plain(form, kind)))


@pytest.mark.parametrize("options", sampled(((one,) for one in PKCS8), every=4, rest=pytest.mark.slow), ids=" ".join)
def test_encrypted_pkcs8_is_read(options: tuple[str, ...]) -> None:
    assert_is_the_key(read(encrypted(*options), PASS))


def test_encrypted_pkcs8_in_der_is_read() -> None:
    assert_is_the_key(read(encrypted("-outform", "DER"), PASS))


@pytest.mark.parametrize("cipher", DEK)
def test_a_traditional_key_is_decrypted(cipher: str) -> None:
    made = openssl("rsa", "-traditional", f"-{cipher}", "-passout", f"pass:{PASS}", *LEGACY, stdin=plain())
    assert b"DEK-Info" in made
    assert_is_the_key(read(made, PASS))


@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "ANYTHING"])
def test_a_label_does_not_decide(label: str) -> None:
    body = plain(kind=PrivateFormat.TraditionalOpenSSL).decode().splitlines()[1:-1]
    assert_is_the_key(read(f"-----BEGIN {label}-----\n{chr(10).join(body)}\n-----END {label}-----\n".encode()))


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_a_pkcs12_of_openssl_is_read(options: tuple[str, ...]) -> None:
    material = read(store(*options, "-name", "my key"), PASS)
    assert_is_the_key(material)
    assert (material.keys[0].alias, certificates_of(material)) == ("my key", [LEAF])
    assert "MZP0012345" in material.keys[0].subject


@pytest.mark.parametrize("passphrase", [None, ""])
@pytest.mark.parametrize("options", [(), ("-legacy",), ("-nomac", "-keypbe", "NONE", "-certpbe", "NONE")])
def test_a_pkcs12_without_passphrase(options: tuple[str, ...], passphrase: str | None) -> None:
    assert_is_the_key(read(store(*options, passphrase=""), passphrase))


@pytest.mark.peer("keytool")
@pytest.mark.slow
def test_each_entry_is_listed(two: Path) -> None:
    """The guide's .jks is PKCS#12. Without an alias none is chosen."""
    found = read(two.read_bytes(), "changeit").keys
    assert [(key.alias, key.subject) for key in found] == [("first", "CN=MZP-first"), ("second", "CN=MZP-second")]
    assert choose_key(found, "second") is found[1]
    with pytest.raises(InputError, match="'first': CN=MZP-first; 'second': CN=MZP-second") as caught:
        choose_key(found)
    assert "--alias" in caught.value.hint
    with pytest.raises(InputError, match="is called 'third'; there are: 'first'"):
        choose_key(found, "third")


@pytest.mark.peer("keytool")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JKS", "JCEKS"])
def test_old_java_stores_are_refused(two: Path, tmp_path: Path, kind: str) -> None:
    """The conversion in the hint works as printed, up to keytool's prompts."""
    old = tmp_path / "a key.bin"
    command: list[str | Path] = ["keytool", "-importkeystore", "-srckeystore", two, "-srcstorepass", "changeit"]
    pki.run(*command, "-destkeystore", old, "-deststoretype", kind, "-deststorepass", "changeit")
    with pytest.raises(RefusedError, match=f"{kind}, an old Java key store") as caught:
        read(old.read_bytes(), "changeit", str(old))
    printed = shlex.split(caught.value.hint.removeprefix("convert it: "))
    pki.run(*printed, "-srcstorepass", "changeit", "-deststorepass", "changeit")
    assert len(read(Path(f"{old}.p12").read_bytes(), "changeit").keys) == 2


ENCRYPTED = {
    "PKCS#8": lambda: encrypted("-v2", "des3"),
    "PBES1": lambda: encrypted("-v1", "PBE-SHA1-RC4-128"),
    "traditional": lambda: openssl("rsa", "-traditional", "-aes256", "-passout", f"pass:{PASS}", stdin=plain()),
    "PKCS#12": store,
}


@pytest.mark.parametrize("make", ENCRYPTED.values(), ids=ENCRYPTED)
def test_wrong_and_missing_passphrases(make: object) -> None:
    assert callable(make)
    made = make()
    with pytest.raises(PassphraseError, match=r"^its\.key is encrypted$"):
        read(made, None, "its.key")
    for wrong in ("planted-passphrase", "", "x" * 2000):
        with pytest.raises(PassphraseError, match=r"^the passphrase of 'its\.key' is wrong") as caught:
            read(made, wrong, "its.key")
        assert "planted" not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize("make", [plain, lambda: store("-nomac", "-keypbe", "NONE", "-certpbe", "NONE")])
def test_an_unneeded_passphrase_is_not_asked(make: Callable[[], bytes]) -> None:
    assert_is_the_key(read(make(), None))


def test_a_certificate_ignores_the_passphrase() -> None:
    """One passphrase is given for several files: it is the key's."""
    assert certificates_of(read(pki.pem(LEAF).encode(), PASS)) == [LEAF]


@pytest.mark.parametrize("key", [pki.an_ec_key(), dsa.generate_private_key(1024)], ids=["EC", "DSA"])
@pytest.mark.parametrize("kind", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
def test_other_keys_are_refused(key: pki.AnyKey, kind: PrivateFormat, form: Encoding) -> None:
    with pytest.raises(InputError, match="the private key is not RSA"):
        read(key.private_bytes(form, kind, NoEncryption()))


def test_odd_keys_cause_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """The library's warnings would name its source files on the terminal."""
    with pytest.raises(InputError, match="the private key is not RSA"):
        read(openssl("genpkey", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"))
    assert not recwarn.list


def test_a_key_beside_its_csr_and_certificate() -> None:
    csr = openssl("req", "-new", "-key", "/dev/stdin", "-subj", "/CN=MZP1", stdin=plain())
    material = read(plain() + csr + pki.pem(LEAF).encode())
    assert_is_the_key(material)
    assert [request.spki for request, _ in material.requests] == [SPKI]
    assert certificates_of(material) == [LEAF]
    assert material.keys[0].subject.endswith("CN=MZP0012345, emailAddress=fleet@company.example")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no private key"),
        (b"hello", "holds no private key"),
        (b"x" * 2_000_000, "it has 2000000 bytes"),
        (plain(Encoding.DER)[:600], "cut off"),
        (plain(Encoding.DER)[:40] + bytes(1180), "is damaged|cut off|stray"),
        (openssl("pkey", "-pubout", stdin=plain()), "public key"),
    ],
)
def test_anything_else_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(data)


def test_an_archive_and_a_mail_are_opened() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("set/its.key", encrypted("-v2", "des3"))
        archive.writestr("set/its.crt", pki.pem(LEAF))
        archive.writestr("set/notes.pdf", "%PDF-")
    mail = EmailMessage()
    mail["From"], mail["To"] = "a@company.example", "b@company.example"
    mail.add_attachment(file.getvalue(), "application", "zip", filename="set.zip")
    for data in (file.getvalue(), mail.as_bytes()):
        material = read(data, PASS)
        assert_is_the_key(material)
        assert material.keys[0].file == "found.bin: set/its.key"
        assert certificates_of(material) == [LEAF]
        assert [finding.code for finding in material.findings] == ["file.passed-over"]
        with pytest.raises(PassphraseError, match=r"^found\.bin: set/its\.key is encrypted"):
            read(data)


def test_a_costly_encryption_is_refused() -> None:
    """Two billion rounds would keep this machine busy for an hour."""
    made = encrypted("-v2", "aes256", "-iter", "1000000", "-outform", "DER")
    assert made.count(b"\x02\x03\x0f\x42\x40") == 1
    with pytest.raises(InputError, match="rounds, more than"):
        read(made.replace(b"\x02\x03\x0f\x42\x40", b"\x02\x03\x7f\xff\xff"), PASS)


def test_nothing_shows_a_key() -> None:
    found = read(plain()).keys[0]
    assert "key=<secret>" in repr(found)


def test_begins_structure_is_no_text() -> None:
    assert not der.begins_structure(b"0123456789" * 7)
