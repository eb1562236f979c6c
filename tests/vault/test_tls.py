"""TLS and mTLS to a real Vault listener, and every case that must be refused."""

from __future__ import annotations

import asyncio
import select
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.copies import replace
from broker.embedded.config import Options
from broker.embedded.server import find_binary, start, stop
from broker.errors import InputError, VaultUnavailableError
from broker.model.secret import Secret
from broker.vault.channel import Channel
from broker.vault.connection import Connection
from broker.vault.errors import UnclearError
from broker.vault.health import health as check_health
from broker.vault.logins import AppRoleLogin, FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.transport import Seen, tls_context
from tests.support import pki
from tests.support.loopback import tls_listener
from tests.support.ports import free_ports
from tests.support.scripted_server import Answer, misbehaving
from tests.support.vault import TestVault, with_root_token

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


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, True),
        ({"server_name": "localhost"}, True),
        ({"server_name": "vault.example"}, False),
        ({"ca_file": None}, False),
        ({"ca_file": "clients.crt"}, False),
        ({"client_key": "stranger.key"}, False),
        ({"client_certificate": "stranger.crt", "client_key": "stranger.key"}, False),
        ({"client_certificate": None, "client_key": None}, False),
        ({"ca_file": "nowhere.crt"}, False),
    ],
)
def test_the_channel_of_a_loop_verifies_too(
    guarded: Guarded, changes: dict[str, str | None], monkeypatch: pytest.MonkeyPatch, *, reached: bool
) -> None:
    answers: list[bytes] = []
    monkeypatch.setattr("broker.vault.channel._Connection.on_body", lambda _, body: answers.append(body))
    files = {n: guarded.folder / str(v) if v and n != "server_name" else v for n, v in changes.items()}

    async def test() -> None:
        channel = Channel(replace(guarded.settings, **files))  # type: ignore[arg-type]
        assert await channel.post("/v1/sys/capabilities-self", {}, b"{}") is None, "without a token it is refused"
        assert bool(answers) == reached
        channel.close()

    asyncio.run(test())


def test_a_common_name_is_no_host(guarded: Guarded) -> None:
    assert not tls_context(guarded.settings).hostname_checks_common_name


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


class _Recorder(socketserver.ThreadingTCPServer):
    """Forwards bytes to `port`, and keeps those that come from the client."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.port, self.received = port, b""
        super().__init__(("127.0.0.1", 0), _Forward)


class _Forward(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        recorder = self.server
        assert isinstance(recorder, _Recorder)
        with socket.create_connection(("127.0.0.1", recorder.port)) as behind:
            while True:
                for ready in select.select([self.request, behind], [], [])[0]:
                    octets = ready.recv(65536)
                    if not octets:
                        return
                    if ready is self.request:
                        recorder.received += octets
                    (behind if ready is self.request else self.request).sendall(octets)


@contextmanager
def recorded(address: str) -> Iterator[_Recorder]:
    with _Recorder(int(address.rpartition(":")[2])) as recorder:
        thread = threading.Thread(target=recorder.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield recorder
        finally:
            recorder.shutdown()
            thread.join()


@pytest.mark.parametrize("method", ["approle", "token", "health"])
def test_no_secret_goes_to_tls_in_clear(guarded: Guarded, tmp_path: Path, method: str) -> None:
    """An http:// address of a TLS Vault is reported as such, before a secret-id or token leaves."""
    for name in ("role_id", "secret_id"):
        (tmp_path / name).write_text(f"planted-{name}")
    with recorded(guarded.settings.address) as recorder:
        port = recorder.server_address[1]
        settings = VaultSettings(f"http://127.0.0.1:{port}", source="$VAULT_ADDR", patience=2.0)
        nobody = Connection(settings)
        approle = AppRoleLogin(nobody, tmp_path / "role_id", tmp_path / "secret_id", mount="any")
        tokens = {"approle": approle, "token": FixedToken(Secret("planted-token")), "health": None}[method]
        with pytest.raises(UnclearError) as caught:
            Connection(settings, tokens).read("accounts/a") if tokens else check_health(settings)
        nobody.close()
    assert caught.value.message.endswith("speaks TLS, and the address says http://; no secret was sent")
    assert caught.value.hint == f"export VAULT_ADDR=https://127.0.0.1:{port}"
    assert b"planted" not in recorder.received
    assert b"GET /v1/sys/seal-status" in recorder.received


def test_https_to_a_plain_vault_is_reported() -> None:
    with with_root_token() as settings:
        address = settings.address.replace("http://", "https://")
        with pytest.raises(UnclearError) as caught:
            check_health(replace(settings, address=address, source="broker.toml"))
    assert "does not speak TLS, and the address says https://" in caught.value.message
    assert caught.value.hint == f'set address = "{settings.address}" under [vault] in broker.toml'


def test_a_plain_vault_is_asked_once(vault: TestVault) -> None:
    """Each command costs one request more, not each request."""
    with misbehaving(Answer(body=b'{"data": {"data": {}, "metadata": {"version": 1}}}')) as server:
        seen = Seen()
        settings = replace(vault.settings, address=server.address)
        for connection in (Connection(settings, FixedToken(Secret("s.x")), seen=seen) for _ in range(2)):
            connection.read("accounts/a")
            connection.read("accounts/b")
            connection.close()
        assert server.probes == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_plain_http_is_for_loopback(host: str) -> None:
    assert VaultSettings(f"http://{host}:8200").is_plain


@pytest.mark.parametrize(
    "host", ["vault.example", "192.0.2.1", "[2001:db8::1]", "127.0.0.1.example", "localhost.example"]
)
def test_plain_http_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="unencrypted") as caught:
        VaultSettings(f"http://{host}:8200", source="$VAULT_ADDR")
    assert f"export VAULT_ADDR=https://{host}:8200; or accept it: allow_http = true" in caught.value.hint
    assert VaultSettings(f"http://{host}:8200", allow_http=True).is_plain


def test_an_uninitialised_vault_is_not_sealed(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    listener = f'listener "tcp" {{ address = "127.0.0.1:{port}", tls_disable = true }}'
    (tmp_path / "bao.hcl").write_text(f'storage "inmem" {{}}\ndisable_mlock = true\n{listener}\n')
    settings = VaultSettings(f"http://127.0.0.1:{port}")
    with subprocess.Popen(
        [find_binary(), "server", f"-config={tmp_path / 'bao.hcl'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            connection = Connection(settings)
            connection.ask("GET", "sys/seal-status")
            connection.close()
            with pytest.raises(VaultUnavailableError, match="Vault is not initialised") as caught:
                check_health(settings)
            assert "operator init" in caught.value.hint
        finally:
            server.terminate()
