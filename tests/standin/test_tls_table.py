"""Bad client certificates fail as OpenSSL's do: in connect() under TLS 1.2, at the first read under TLS 1.3."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from partner_standin import Standin

from tests.support.partner import LOGIN, PASSWORD, Customer, soon

CURL_CONNECT, CURL_READ = 35, 56
CURL_BAD_FILE = (43, 58)  # by its version

# cell: result with TLS 1.2, result with TLS 1.3
TABLE = {
    "nothing": ("handshake failure", "tlsv13 alert certificate required"),
    "expired": ("certificate expired", "certificate expired"),
    "not yet valid": ("bad certificate", "bad certificate"),
    "other ca": ("unknown ca", "unknown ca"),
    "missing intermediate": ("unknown ca", "unknown ca"),
    "server purpose": ("unsupported certificate", "unsupported certificate"),
    "revoked": ("certificate revoked", "certificate revoked"),
}
# curl reports this alert as if its own verification of the server had failed
CURL_OWN_WORDS = {("expired", "1.2"): (60, "SSL certificate verification failed")}
CELLS = [(cell, tls, says[tls == "1.3"]) for cell, says in TABLE.items() for tls in ("1.2", "1.3")]


@pytest.fixture
def presenting(customer: Customer, tmp_path: Path) -> dict[str, Customer]:
    revoked = customer.enrolled()
    customer.partner.registry.revoke(revoked.serial, revoked.partner.registry._clock())
    return {
        "nothing": customer.but(certificate=None),
        "expired": customer.enrolled(not_before="-2d", lifetime="-1d"),
        "not yet valid": customer.enrolled(not_before="1d"),
        "other ca": _of_another_partner(customer, tmp_path),
        "missing intermediate": customer.enrolled(issuer="intermediate"),
        "server purpose": customer.enrolled(purpose="server"),
        "revoked": revoked,
    }


def _of_another_partner(customer: Customer, tmp_path: Path) -> Customer:
    other = Standin(tmp_path / "other", accounts={LOGIN: PASSWORD})
    with other:
        return customer.but(partner=other).enrolled().but(partner=customer.partner)


@pytest.mark.peer("curl")
def test_curl_reproduces_every_cell(presenting: dict[str, Customer]) -> None:
    for cell, tls, alert in CELLS:
        status, says = CURL_OWN_WORDS.get((cell, tls), (CURL_CONNECT if tls == "1.2" else CURL_READ, alert))
        seen = presenting[cell].curl("/fleets", tls=tls)
        assert seen.returncode == status, (cell, tls, seen.stderr)
        assert says in seen.stderr, (cell, tls, seen.stderr)


@pytest.mark.peer("openssl")
def test_openssl_reproduces_every_cell(presenting: dict[str, Customer]) -> None:
    for cell, tls, says in CELLS:
        seen = _s_client(presenting[cell], tls)
        assert says in seen, (cell, tls, seen)


def test_python_reproduces_every_cell(presenting: dict[str, Customer]) -> None:
    for cell, tls, says in CELLS:
        connection = presenting[cell].connect(tls)
        try:
            if tls == "1.2":
                with pytest.raises(ssl.SSLError) as failed:
                    connection.connect()
            else:
                connection.connect()
                with pytest.raises(ssl.SSLError) as failed:
                    connection.sock.recv(1)
        finally:
            connection.close()
        reason = str(failed.value.reason).lower().replace("_", " ")
        assert says.removeprefix("tlsv13 alert ") in reason, (cell, tls, reason)


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_chain_with_intermediate_passes(customer: Customer, tls: str) -> None:
    leaf = customer.enrolled(issuer="intermediate")
    assert leaf.certificate
    with leaf.certificate.open("a") as file:
        file.write(customer.partner.authorities.intermediate().pem)
    assert leaf.call("/fleets", tls=tls).status == 200


@pytest.mark.peer("curl")
@pytest.mark.peer("openssl")
def test_the_key_of_another_cert_fails(customer: Customer) -> None:
    stranger = customer.enrolled(wrong="key")
    seen = stranger.curl("/fleets")
    assert seen.returncode in CURL_BAD_FILE
    assert "key values mismatch" in _s_client(stranger, "1.3")
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        stranger.context()
    assert {entry.outcome for entry in customer.partner.log.entries()} <= {"handshake: unexpected eof while reading"}


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_valid_certificate_is_accepted(customer: Customer, tls: str) -> None:
    assert customer.call("/fleets", tls=tls).status == 200


def test_the_log_has_the_certificate_fault(presenting: dict[str, Customer]) -> None:
    presenting["expired"].curl("/fleets")
    log = presenting["expired"].partner.log
    assert soon(lambda: [entry.outcome for entry in log.entries()] == ["handshake: certificate has expired"])


def _s_client(customer: Customer, tls: str) -> str:
    pair = ["-cert", str(customer.certificate), "-key", str(customer.key_file)] if customer.certificate else []
    address = urlsplit(customer.partner.api_url).netloc
    command = ["openssl", "s_client", "-connect", address, f"-tls{tls.replace('.', '_')}", "-quiet", *pair]
    seen = subprocess.run(
        [*command, "-CAfile", str(customer.partner.server_ca)],
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return seen.stderr.decode().lower()
