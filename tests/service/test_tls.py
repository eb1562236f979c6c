"""TLS of a listener: a certificate that is replaced while the service runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.errors import InputError, VaultUnavailableError
from broker.model.secret import Secret
from broker.service import tls as module
from broker.service.tls import IssuedTls, ReloadedTls, Tls
from broker.telemetry import log
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


async def served(tls: Tls, test: Callable[[int], object]) -> None:
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
    monkeypatch.setattr(module, "_CHECK", 0.01)
    certificate, key = write_pair(tmp_path, "one")

    def test(port: int) -> None:
        assert name_at(port) == "one"
        for name in ("two", "three"):
            write_pair(tmp_path, name)
            while name_at(port) != name:
                pass

    asyncio.run(served(ReloadedTls(certificate, key), test))


def test_a_bad_new_certificate_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK", 0.01)
    certificate, key = write_pair(tmp_path, "one")
    tls = ReloadedTls(certificate, key)

    def test(port: int) -> None:
        logged: list[object] = []
        monkeypatch.setattr(log, "error", lambda *_, **more: logged.append(more["reason"]))
        write_pair(tmp_path, "two", key_of="three")
        while not logged:
            pass
        assert name_at(port) == "one"
        write_pair(tmp_path, "four")
        while name_at(port) != "four":
            pass

    asyncio.run(served(tls, test))


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), InputError("unreadable")])
def test_a_failed_load_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Although the files do not change any more; it is logged once."""
    monkeypatch.setattr(module, "_CHECK", 0.01)
    logged: list[str] = []
    monkeypatch.setattr(log, "error", lambda text, **_: logged.append(text))
    tls, load = ReloadedTls(*write_pair(tmp_path, "one")), ReloadedTls._load
    errors = [error] * 3

    def failing(self: ReloadedTls) -> ssl.SSLContext:
        if errors:
            raise errors.pop()
        return load(self)

    def test(port: int) -> None:
        monkeypatch.setattr(ReloadedTls, "_load", failing)
        write_pair(tmp_path, "two")
        while name_at(port) != "two":
            pass

    asyncio.run(asyncio.wait_for(served(tls, test), 30))
    assert 1 <= len(logged) <= 2, "a look may come between both files"


def test_a_new_mode_is_a_change(tmp_path: Path) -> None:
    certificate, key = write_pair(tmp_path, "one")
    tls = ReloadedTls(certificate, key)
    while not tls._is_due():
        key.chmod(0o600)


def issued(folder: Path, name: str) -> Secret[bytes]:
    certificate, key = write_pair(folder, name)
    return Secret(key.read_bytes() + certificate.read_bytes())


def test_an_issued_certificate_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At two thirds of its life; if Vault is away then, the old one serves until the next try."""
    monkeypatch.setattr(module, "_CHECK", 0.01)
    monkeypatch.setattr(module, "_AGAIN", 0.05)
    names = iter(["one", "", "", "two"])

    def issue() -> Secret[bytes]:
        name = next(names)
        if not name:
            raise VaultUnavailableError("away")
        return issued(tmp_path, name)

    tls = IssuedTls(issue)
    assert tls._due == pytest.approx(time.time() + 16 * 3600, abs=60)

    def test(port: int) -> None:
        assert name_at(port) == "one"
        tls._due = 0.0  # time has passed
        while (name := name_at(port)) != "two":
            assert name == "one"
        assert tls._due > time.time() + 3600

    asyncio.run(served(tls, test))


def test_an_issued_key_is_on_no_disk(tmp_path: Path) -> None:
    pem = issued(tmp_path, "one")
    for file in tmp_path.iterdir():
        file.unlink()
    tls = IssuedTls(lambda: pem)
    assert isinstance(tls.context(), ssl.SSLContext)
    assert not list(tmp_path.iterdir())
