"""A customer of the partner stand-in: makes CSRs, holds a set in files, and calls the API as programs do."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from partner_standin import Standin

from broker.copies import replace

LOGIN = "MZP0000001"
PASSWORD = "pl4nted:Pa§s/word+1"
OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
SUBJECT = {
    "C": "FR",
    "ST": "Ile-de-France",
    "L": "Paris",
    "O": "Société Exemple",
    "OU": "Programs Partners",
    "CN": LOGIN,
    "emailAddress": "api@exemple.example",
}


def a_csr(key: Any, *, der: bool = False, **changes: str) -> bytes:
    """Return a CSR as the guide wants it, but for `changes`; an empty value leaves the attribute out."""
    values = {**SUBJECT, **changes}
    name = x509.Name([x509.NameAttribute(OIDS[k], v) for k, v in values.items() if v])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.DER if der else serialization.Encoding.PEM)


def key_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Clock:
    """A stand-in's time, which stands still until a test moves it."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def goes_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Customer:
    """One set in files, and what to change of it for one call."""

    partner: Standin
    directory: Path
    key: rsa.RSAPrivateKey
    login: str = LOGIN
    password: str = PASSWORD
    client_id: str = ""
    certificate: Path | None = None
    key_file: Path | None = None

    def enrolled(self, **options: str) -> Customer:
        """Return the customer with a certificate that the desk signed on these terms."""
        reply = self.partner.sign(a_csr(self.key, CN=self.login), **options)
        number = len(list(self.directory.iterdir()))
        certificate, key_file = self.directory / f"{number}.crt", self.directory / f"{number}.key"
        certificate.write_text(reply.certificate)
        key_file.write_bytes(key_pem(self.key))
        return replace(self, client_id=reply.client_id, certificate=certificate, key_file=key_file)

    @property
    def serial(self) -> str:
        assert self.certificate
        return f"{x509.load_pem_x509_certificate(self.certificate.read_bytes()).serial_number:x}"

    def but(self, **changes: Any) -> Customer:
        return replace(self, **changes)

    def url(self, path: str) -> str:
        joint = "&" if "?" in path else "?"
        query = f"{joint}{urlencode({'client_id': self.client_id})}" if self.client_id else ""
        return f"{self.partner.api_url}{path}{query}"

    def context(self, tls: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.partner.server_ca))
        if tls:
            version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[tls]
            context.minimum_version = context.maximum_version = version
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key_file)
        return context

    def headers(self) -> dict[str, str]:
        basic = base64.b64encode(f"{self.login}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}

    def connect(self, tls: str = "", timeout: float = 10) -> http.client.HTTPSConnection:
        address = urlsplit(self.partner.api_url)
        assert address.hostname
        return http.client.HTTPSConnection(address.hostname, address.port, context=self.context(tls), timeout=timeout)

    def call(
        self,
        path: str,
        method: str = "GET",
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        tls: str = "",
        timeout: float = 10,
    ) -> Response:
        """Make one request on a new connection."""
        connection = self.connect(tls, timeout)
        target = self.url(path).removeprefix(f"https://{urlsplit(self.partner.api_url).netloc}")
        try:
            connection.request(method, target, body, {**self.headers(), **(headers or {})})
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def curl(self, path: str, *arguments: str, tls: str = "") -> subprocess.CompletedProcess[str]:
        versions = {"": [], "1.2": ["--tls-max", "1.2"], "1.3": ["--tlsv1.3"]}[tls]
        pair = ["--cert", str(self.certificate), "--key", str(self.key_file)] if self.certificate else []
        config = f'user = "{self.login}:{self.password}"\n'
        command = ["curl", "-q", "-sS", "-K", "-", "--cacert", str(self.partner.server_ca), *versions, *pair]
        return subprocess.run(
            [*command, *arguments, self.url(path)],
            input=config,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def soon(holds: Callable[[], bool]) -> bool:
    """Wait up to two seconds for what another thread does after its last byte was sent."""
    deadline = time.monotonic() + 2
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


def desk(partner: Standin, method: str, path: str, body: Any = None) -> Response:
    """Ask the desk; a dict travels as JSON, bytes as they are."""
    address = urlsplit(partner.desk_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body)
        answer = connection.getresponse()
        return Response(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()
