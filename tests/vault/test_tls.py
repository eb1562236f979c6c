"""TLS and mTLS to a real Vault listener, and every case that must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.embedded.config import Options
from broker.embedded.server import start, stop
from broker.errors import InputError, VaultUnavailableError
from broker.vault.connection import Connection
from broker.vault.errors import UnclearError
from broker.vault.settings import VaultSettings
from tests.support import pki
from tests.support.loopback import tls_listener
from tests.support.ports import free_ports

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Guarded:
    """A Vault that wants a client certificate, and settings that satisfy it."""

    settings: VaultSettings
    folder: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    ca = pki.a_ca("clients of the vault")
    (folder / "clients.crt").write_text(ca.pem)
    for name, issuer in (("good", ca), ("stranger", pki.a_ca("strangers"))):
        key = pki.a_key(name)
        (folder / f"{name}.crt").write_text(pki.pem(pki.a_leaf(issuer, key, not_after=pki.NOW + timedelta(days=3000))))
        (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port = free_ports(1)[0]
    listener = tls_listener(folder, port, folder / "clients.crt")
    running = start(folder / "v", Options(listener=listener, tied=True))
    yield Guarded(
        VaultSettings(
            f"https://127.0.0.1:{port}",
            ca_file=folder / "ca.crt",
            client_certificate=folder / "good.crt",
            client_key=folder / "good.key",
            patience=5.0,
        ),
        folder,
    )
    stop(running.home.root)


def health(settings: VaultSettings) -> bool:
    connection = Connection(settings)
    try:
        return bool(connection.ask("GET", "sys/health")["initialized"])
    finally:
        connection.close()


def test_both_sides_verified_it_works(guarded: Guarded) -> None:
    assert health(guarded.settings)


def test_server_name_is_verified(guarded: Guarded) -> None:
    assert health(replace(guarded.settings, server_name="localhost"))
    with pytest.raises(UnclearError, match="certificate"):
        health(replace(guarded.settings, server_name="vault.example"))


def test_public_cas_verify_no_private_ca(guarded: Guarded) -> None:
    with pytest.raises(UnclearError, match="certificate") as caught:
        health(replace(guarded.settings, ca_file=None))
    assert "VAULT_CACERT" in caught.value.hint


def test_another_ca_is_refused(guarded: Guarded) -> None:
    with pytest.raises(UnclearError):
        health(replace(guarded.settings, ca_file=guarded.folder / "clients.crt"))


@pytest.mark.peer("openssl")
def test_a_directory_of_cas_serves_too(guarded: Guarded, tmp_path: Path) -> None:
    assert guarded.settings.ca_file
    name = pki.run("openssl", "x509", "-hash", "-noout", "-in", guarded.settings.ca_file).decode().strip()
    (tmp_path / f"{name}.0").write_bytes(guarded.settings.ca_file.read_bytes())
    assert health(replace(guarded.settings, ca_file=None, ca_directory=tmp_path))


@pytest.mark.parametrize("which", ["", "stranger"])
def test_wrong_client_certificate(guarded: Guarded, which: str) -> None:
    certificate = guarded.folder / f"{which}.crt" if which else None
    key = guarded.folder / f"{which}.key" if which else None
    with pytest.raises(VaultUnavailableError):
        health(replace(guarded.settings, client_certificate=certificate, client_key=key, patience=0.3))


def test_key_of_another_certificate(guarded: Guarded) -> None:
    with pytest.raises(VaultUnavailableError):
        health(replace(guarded.settings, client_key=guarded.folder / "stranger.key", patience=0.3))


@pytest.mark.parametrize("field", ["ca_file", "client_certificate"])
def test_missing_tls_file_is_input_error(guarded: Guarded, field: str) -> None:
    with pytest.raises(InputError, match="nowhere"):
        health(replace(guarded.settings, **{field: guarded.folder / "nowhere.crt"}))  # type: ignore[arg-type]


def test_plain_http_to_tls_is_reported(guarded: Guarded) -> None:
    with pytest.raises((VaultUnavailableError, InputError)):
        health(replace(guarded.settings, address=guarded.settings.address.replace("https", "http")))
