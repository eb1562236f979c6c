"""Addresses to listen on, and a certificate that is replaced while the service runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.errors import InputError
from broker.service import listeners
from broker.service.listeners import Address, ReloadedTls
from tests.support.pki import an_ec_key


def write_pair(folder: Path, name: str, key_of: str = "") -> tuple[Path, Path]:
    """Write a self-signed certificate called `name`, and the key of another if `key_of` says so."""
    key, now = an_ec_key(name), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate, key_file = folder / "tls.crt", folder / "tls.key"
    for file, data in (
        (certificate, builder.sign(key, SHA256()).public_bytes(Encoding.PEM)),
        (
            key_file,
            an_ec_key(key_of or name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ),
    ):
        fresh = file.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(file)
    return certificate, key_file


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:8250", "http://127.0.0.1:8250"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("https://0.0.0.0:8443", "https://0.0.0.0:8443"),
        ("unix:///run/broker.sock", "unix:///run/broker.sock"),
        ("localhost:1", "http://localhost:1"),
    ],
)
def test_addresses_are_read(text: str, shown: str) -> None:
    assert str(Address.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", ":1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "ftp://127.0.0.1:1", "unix:x", "unix://h/x", "[::1"],
)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "http://192.0.2.1:1", "broker.example:1", "127.0.0.1.example:1"])
def test_plain_http_is_for_loopback(text: str) -> None:
    with pytest.raises(InputError, match="is not loopback"):
        Address.parse(text)
    assert Address.parse(text, behind_proxy=True).port == 1


def test_a_taken_address_is_said() -> None:
    with Address.parse("127.0.0.1:0").bound() as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(InputError, match="cannot listen"):
            Address.parse(f"127.0.0.1:{port}").bound()


def test_a_living_socket_is_not_replaced(tmp_path: Path) -> None:
    address = Address.parse(f"unix://{tmp_path}/s")
    with address.bound() as first:
        first.listen()
        with pytest.raises(InputError, match="cannot listen"):
            address.bound()
    address.bound().close()  # what is left of a killed one is
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="cannot listen"):
        Address.parse(f"unix://{tmp_path}/file").bound()
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("problem", ["missing", "mismatch", "garbage", "encrypted"])
def test_a_bad_certificate_is_refused(tmp_path: Path, problem: str) -> None:
    certificate, key = write_pair(tmp_path, "one", key_of="two" if problem == "mismatch" else "")
    if problem == "missing":
        key.unlink()
    elif problem == "garbage":
        certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    elif problem == "encrypted":
        key.write_bytes(
            an_ec_key("one").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        )
    with pytest.raises(InputError):
        ReloadedTls(certificate, key)


async def served(tls: ReloadedTls, test: Callable[[int], object]) -> None:
    """Serve TLS that closes at once; run `test` in a thread with the port, and follow the files meanwhile."""

    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=tls.context())
    follower = asyncio.create_task(tls.follow())
    try:
        await asyncio.to_thread(test, server.sockets[0].getsockname()[1])
    finally:
        follower.cancel()
        server.close()


def name_at(port: int) -> str:
    """Return the name in the certificate that is served at `port`."""
    text = ssl.get_server_certificate(("127.0.0.1", port), timeout=30)
    found = x509.load_pem_x509_certificate(text.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value)


def test_a_new_certificate_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_CHECK", 0.01)
    certificate, key = write_pair(tmp_path, "one")

    def test(port: int) -> None:
        assert name_at(port) == "one"
        for name in ("two", "three"):
            write_pair(tmp_path, name)
            while name_at(port) != name:
                pass

    asyncio.run(served(ReloadedTls(certificate, key), test))


def test_a_bad_new_certificate_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_CHECK", 0.01)
    certificate, key = write_pair(tmp_path, "one")
    tls = ReloadedTls(certificate, key)

    def test(port: int) -> None:
        write_pair(tmp_path, "two", key_of="three")
        seen = tls._seen
        while tls._seen == seen:
            pass
        assert name_at(port) == "one"
        write_pair(tmp_path, "four")
        while name_at(port) != "four":
            pass

    asyncio.run(served(tls, test))
