"""A finding that OpenSSL servers refuse a certificate is compared with a real server."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.model.finding import Severity
from broker.pki import certificates, keys
from broker.pki.certificate_fields import spki_of
from broker.pki.verification import Expected, verify_certificate
from tests.support import pki

pytestmark = pytest.mark.peer("openssl")

ERROR, WARNING = Severity.ERROR, Severity.WARNING
CLIENT, SERVER, ANY = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)
ROOT = pki.a_ca("Root")
KEY = pki.a_key("ca Middle")
P192 = ec.generate_private_key(ec.SECP192R1())


@dataclass(frozen=True)
class Case:
    """A chain, whether a server at this security level refuses it, and its finding."""

    chain: tuple[x509.Certificate, ...]
    refused: bool
    found: tuple[Severity, str] | None
    level: int = 1
    root: pki.Ca = ROOT


def by(**ca: object) -> tuple[x509.Certificate, ...]:
    """An ordinary leaf under an intermediate that is made like this."""
    made = pki.a_ca("Middle", **{"issuer": ROOT, "key": KEY, **ca})  # type: ignore[arg-type]
    return pki.a_leaf(made), made.certificate


def leaf(**options: object) -> tuple[x509.Certificate, ...]:
    """A leaf that is made like this under the root."""
    return (pki.a_leaf(ROOT, **options),)  # type: ignore[arg-type]


def forgeable(digest: hashes.SHA1 | hashes.MD5) -> tuple[x509.Certificate, ...]:
    """An ordinary leaf under an intermediate that the root signed with this digest."""
    found, middle = by()
    assert isinstance(ROOT.key, rsa.RSAPrivateKey)
    return found, pki.resigned(middle, ROOT.key, digest)


def purposes(*oids: x509.ObjectIdentifier) -> list[pki.ExtensionOf]:
    return [(x509.ExtendedKeyUsage(oids), False)]


def a_bare_root(bits: int) -> pki.Ca:
    """A root that is a CA only by nsCertType."""
    return pki.a_ca("Bare", key=KEY, basic=None, cert_sign=None, extra=[pki.netscape_type(bits)])


E_3 = pki.a_key("three", exponent=3)
NO_CA, SSL_CA = a_bare_root(0x01), a_bare_root(0x04)
assert isinstance(ROOT.key, rsa.RSAPrivateKey)
CASES = {
    "ordinary": Case(by(), False, None),
    "leaf, nsCertType client and server": Case(leaf(extra=[pki.netscape_type(0xC0)]), False, None),
    "leaf, nsCertType server": Case(leaf(extra=[pki.netscape_type(0x40)]), True, (ERROR, "purpose")),
    "leaf, nsCertType email": Case(leaf(extra=[pki.netscape_type(0x20)]), True, (ERROR, "purpose")),
    "leaf, EKU server": Case(leaf(eku=[SERVER]), True, (ERROR, "purpose")),
    "leaf, EKU any": Case(leaf(eku=[ANY]), True, (WARNING, "purpose")),
    "leaf, EKU any and client": Case(leaf(eku=[ANY, CLIENT]), False, None),
    "leaf, no digitalSignature": Case(leaf(digital_signature=False), True, (ERROR, "key-usage")),
    "leaf, SHA-1": Case((pki.resigned(pki.a_leaf(ROOT), ROOT.key, hashes.SHA1()),), True, (ERROR, "signature.weak")),
    "leaf, MD5": Case((pki.resigned(pki.a_leaf(ROOT), ROOT.key, hashes.MD5()),), True, (ERROR, "signature.weak")),
    "CA, EKU any": Case(by(extra=purposes(ANY)), True, (ERROR, "ca.purpose")),
    "CA, EKU server and any": Case(by(extra=purposes(SERVER, ANY)), True, (ERROR, "ca.purpose")),
    "CA, EKU server": Case(by(extra=purposes(SERVER)), True, (ERROR, "ca.purpose")),
    "CA, EKU server and client": Case(by(extra=purposes(SERVER, CLIENT)), False, None),
    "CA, nsCertType sslCA": Case(by(extra=[pki.netscape_type(0x04)]), False, None),
    "CA, nsCertType objCA": Case(by(extra=[pki.netscape_type(0x01)]), False, (WARNING, "ca.purpose")),
    "root, nsCertType objCA alone": Case((pki.a_leaf(NO_CA),), True, (ERROR, "ca.purpose"), root=NO_CA),
    "root, nsCertType sslCA alone": Case(
        (pki.a_leaf(SSL_CA),), False, (WARNING, "ca.no-basic-constraints"), root=SSL_CA
    ),
    "CA, RSA 1024": Case(by(key=pki.a_key("weak ca", 1024)), True, (ERROR, "ca.weak-key"), level=2),
    "CA, EC 192": Case(by(key=P192), True, (ERROR, "ca.weak-key"), level=2),
    "CA, EC 256": Case(by(key=pki.an_ec_key("ca")), False, None, level=2),
    "CA, RSA exponent 3": Case(by(key=E_3), False, (WARNING, "ca.exponent"), level=2),
    "CA, SHA-1": Case(forgeable(hashes.SHA1()), True, (ERROR, "ca.signature.weak")),
    "CA, MD5": Case(forgeable(hashes.MD5()), True, (ERROR, "issuer")),  # the library verifies no MD5
}


@contextmanager
def a_server(folder: Path, root: pki.Ca, level: int) -> Iterator[int]:
    """Run `openssl s_server`, which requires a client certificate under `root`; yield its port."""
    file, trusted = folder / "server.pem", folder / "root.pem"
    file.write_bytes(keys.pem(pki.secret_of(KEY)).reveal() + pki.pem(pki.a_leaf(ROOT, KEY)).encode())
    trusted.write_text(root.pem)
    command: list[str | Path] = [
        "openssl",
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-www",
        "-cert",
        file,
        "-CAfile",
        trusted,
    ]
    command += ["-Verify", "5", "-verify_return_error", "-attime", f"{pki.NOW:%s}", "-cipher", f"ALL:@SECLEVEL={level}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout
        try:
            lines = (re.match(rb"ACCEPT 127\.0\.0\.1:(\d+)", line) for line in server.stdout)
            yield next(int(found[1]) for found in lines if found)
        finally:
            server.kill()


def refuses(folder: Path, case: Case) -> bool:
    """Return whether a real server refuses a client with this chain."""
    shown = folder / "client.pem"
    shown.write_text(pki.pem(*case.chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(shown, pki.key_file(folder))
    with a_server(folder, case.root, case.level) as port, socket.create_connection(("127.0.0.1", port), 5) as raw:
        try:
            with context.wrap_socket(raw) as secured:
                secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return not secured.recv(20).startswith(b"HTTP/1.0 200")
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")


def verified(case: Case) -> list[tuple[Severity, str]]:
    """Return the findings about the chain, with the root pinned."""
    found = certificates.certificate_of(case.chain[0], case.chain[1:])
    ca_set = certificates.ca_set(case.root.pem)
    spki = spki_of(case.chain[0])
    said = verify_certificate(found, Expected(pki.GUIDE, pki.LOGIN, ca_set, spki, pki.GOOD), pki.NOW)
    return [(finding.severity, finding.code.removeprefix("certificate.")) for finding in said]


@pytest.mark.parametrize("name", CASES)
def test_servers_do_as_the_finding_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert verified(case)[:1] == ([case.found] if case.found else [])
    assert refuses(tmp_path, case) is case.refused


def test_a_tiny_ca_key_is_refused(tmp_path: Path) -> None:
    """RSA of 512 bits is factored in hours; pinned or not, by the laxest server too."""
    tiny = pki.a_ca("Tiny", issuer=ROOT, key=pki.a_tiny_key())
    case = Case((pki.a_leaf(tiny), tiny.certificate), True, (ERROR, "ca.weak-key"))
    assert verified(case) == [case.found]
    assert verified(Case(case.chain[:1], True, case.found, root=tiny)) == [case.found]
    assert refuses(tmp_path, case)
