"""A context presents the certificate and trusts only the pinned CAs, over real sockets."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.errors import InputError, RefusedError
from broker.model.secret import Secret
from broker.pki import keys
from broker.pki.tls import client_context
from tests.pki.inputs import INPUTS
from tests.support import pki

KEY = keys.pem(pki.secret_of(pki.a_key()))
NOW = datetime.now(UTC)
START, END = NOW - timedelta(days=1), NOW + timedelta(days=30)
CLIENTS = pki.a_ca("Client CA", not_before=START, not_after=END)
SERVERS = pki.a_ca("Server CA", not_before=START, not_after=END)
MIDDLE = pki.a_ca("Server Middle", issuer=SERVERS, not_before=START, not_after=END)
LEAF = pki.a_leaf(CLIENTS, not_before=START, not_after=END)


def a_context(key: Secret[bytes], chain: str, trust: str) -> ssl.SSLContext:
    return client_context(Secret(key.reveal() + chain.encode()), trust)


def a_server(folder: Path, version: ssl.TLSVersion, host: str = "127.0.0.1", ca: pki.Ca = MIDDLE) -> ssl.SSLContext:
    """A server under `ca` that requires a certificate of `Client CA`, and accepts weak keys."""
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(host))])
    leaf = pki.a_leaf(
        ca,
        pki.a_key("server"),
        "server",
        eku=[ExtendedKeyUsageOID.SERVER_AUTH],
        extra=[(names, False)],
        not_before=START,
        not_after=END,
    )
    file = folder / "server.pem"
    file.write_bytes(keys.pem(pki.secret_of(pki.a_key("server"))).reveal() + pki.pem(leaf, ca.certificate).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=CLIENTS.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def said_by(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """Connect, and return the server's answer: the subject that it saw."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_one, args=(server, listener), daemon=True)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=5) as raw,
                client.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
            ):
                return secured.recv(1000)
        finally:
            thread.join(5)


def _answer_one(server: ssl.SSLContext, listener: socket.socket) -> None:
    raw, _ = listener.accept()
    raw.settimeout(5)
    try:
        with server.wrap_socket(raw, server_side=True) as secured:
            secured.sendall(str(secured.getpeercert()).encode())
    except OSError:
        raw.close()  # the client's side of the test says what went wrong


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("ca", [SERVERS, MIDDLE], ids=["root", "intermediate"])
def test_the_server_sees_our_certificate(version: ssl.TLSVersion, ca: pki.Ca, tmp_path: Path) -> None:
    context = a_context(KEY, pki.pem(LEAF), ca.pem)
    assert pki.LOGIN.encode() in said_by(a_server(tmp_path, version), context)


def test_other_server_ca_is_not_trusted(tmp_path: Path) -> None:
    """Neither one under the CA of our certificate, nor any of the system's."""
    context = a_context(KEY, pki.pem(LEAF), CLIENTS.pem)
    assert len(context.get_ca_certs()) == 1
    with pytest.raises(ssl.SSLCertVerificationError):
        said_by(a_server(tmp_path, ssl.TLSVersion.TLSv1_3), context)


def test_other_server_name_is_not_trusted(tmp_path: Path) -> None:
    context = a_context(KEY, pki.pem(LEAF), SERVERS.pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        said_by(a_server(tmp_path, ssl.TLSVersion.TLSv1_3, host="127.0.0.2"), context)


@pytest.mark.peer("openssl")
def test_a_server_under_a_tiny_ca_is_refused(tmp_path: Path) -> None:
    """A factored key lets others pose as the server, although the CA is pinned."""
    tiny = pki.a_ca("Tiny", key=pki.a_tiny_key(), not_before=START, not_after=END)
    context = a_context(KEY, pki.pem(LEAF), tiny.pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="CA certificate key too weak"):
        said_by(a_server(tmp_path, ssl.TLSVersion.TLSv1_3, ca=tiny), context)


def test_old_tls_is_off_and_verification_on() -> None:
    context = a_context(KEY, pki.pem(LEAF), SERVERS.pem)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_other_certificates_key_is_refused() -> None:
    with pytest.raises(RefusedError, match="the private key is not this certificate's"):
        a_context(keys.pem(pki.secret_of(pki.a_key("other"))), pki.pem(LEAF), SERVERS.pem)


@pytest.mark.parametrize(
    ("chain", "trust", "words"),
    [
        ("", SERVERS.pem, "the client certificate cannot be used"),
        ("junk", SERVERS.pem, "the client certificate cannot be used"),
        (pki.pem(LEAF), "", "the CA certificates that verify the server"),
        (pki.pem(LEAF), "junk", "the CA certificates that verify the server"),
        (pki.pem(LEAF), SERVERS.pem[:200], "the CA certificates that verify the server"),
    ],
)
def test_unreadable_pem_is_refused(chain: str, trust: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        a_context(KEY, chain, trust)


def test_a_broken_key_is_refused() -> None:
    with pytest.raises(InputError, match="the client certificate cannot be used: it cannot be read"):
        a_context(Secret(b"junk"), pki.pem(LEAF), SERVERS.pem)


def test_no_descriptor_stays_open() -> None:
    """Neither after success nor after a refusal: it would hold the key."""
    gc.collect()  # what others left to it is not counted
    before = _descriptors()
    a_context(KEY, pki.pem(LEAF), SERVERS.pem)
    with pytest.raises(InputError):
        a_context(KEY, "junk", SERVERS.pem)
    assert _descriptors() <= before  # fewer, if something else of this process was closed meanwhile


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


NEWER_TAKES = ("a signature that can be forged", "an extension is broken")


@pytest.mark.parametrize(
    ("key", "chain", "words"),
    [
        (
            pki.a_key("small", 1024),
            lambda: pki.pem(pki.a_leaf(CLIENTS, pki.a_key("small", 1024))),
            "its key is too small",
        ),
        (pki.a_key(), lambda: pki.pem(*INPUTS["leaf, SHA-1"].chain()), "a signature that can be forged"),
        (pki.a_key(), lambda: pki.pem(*INPUTS["leaf, broken alternative names"].chain()), "an extension is broken"),
        (pki.a_key(), lambda: "garbage", "it cannot be read"),
    ],
    ids=["small key", "SHA-1", "broken", "garbage"],
)
def test_an_unusable_certificate_is_explained(key: pki.AnyKey, chain: Callable[[], str], words: str) -> None:
    if words in NEWER_TAKES and ssl.OPENSSL_VERSION_INFO >= (3, 5):
        pytest.skip("this OpenSSL takes it: the partner's server decides")
    with pytest.raises(InputError, match=f"^the client certificate cannot be used: .*{words}$"):
        a_context(keys.pem(pki.secret_of(key)), chain(), SERVERS.pem)
