"""`broker serve --tls-pki`: certificates of a real PKI engine, signed with one right of the server role."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.model.role import Role
from broker.vault.pki_engine import issue
from broker.vault.policies import policy_name, role_policy
from tests.e2e.test_service import serving
from tests.support.console import inside
from tests.support.system import System

pytestmark = pytest.mark.slow


@dataclass
class Pki:
    """A PKI engine with the role `broker`, whose certificates last some seconds."""

    system: System
    mount: str
    ca: str

    def grant(self) -> None:
        """Give the server role its one right there, as `vault setup` does."""
        mount = self.system.vault.settings.mount
        hcl = role_policy(Role.SERVER, mount=mount, pki=[f"{self.mount}/sign/broker"])
        self.system.vault.admin.call("POST", f"sys/policies/acl/{policy_name(mount, 'server')}", {"policy": hcl})


@pytest.fixture
def pki(system: System) -> Iterator[Pki]:
    """The engine, without a right of ours."""
    admin, mount = system.vault.admin, f"pki-{system.vault.settings.mount}"
    admin.call("POST", f"sys/mounts/{mount}", {"type": "pki"})
    root = admin.ask("POST", f"{mount}/root/generate/internal", {"common_name": "test CA", "ttl": "1h"})
    role = {"allow_localhost": True, "allow_ip_sans": True, "key_type": "ec", "ttl": "4s", "require_cn": False}
    admin.call("POST", f"{mount}/roles/broker", role)
    yield Pki(system, mount, root["data"]["certificate"])
    admin.call("DELETE", f"sys/mounts/{mount}")


def serial_at(port: int) -> int:
    text = ssl.get_server_certificate(("127.0.0.1", port), timeout=30)
    return x509.load_pem_x509_certificate(text.encode()).serial_number


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_certificate_of_vault_is_renewed(system: System, pki: Pki, name: str) -> None:
    pki.grant()
    with serving(
        system, "--listen", "https://127.0.0.1:0", "--tls-pki", f"{pki.mount}/broker", "--tls-name", name
    ) as one:
        port = int(re.findall(r":(\d+)$", one.addresses[0])[0])
        trusting = ssl.create_default_context(cadata=pki.ca)
        with httpx.Client(verify=trusting, trust_env=False, timeout=30) as client:
            assert client.get(f"https://{name}:{port}/openapi.json").status_code == 200
        first = serial_at(port)
        while serial_at(port) == first:
            pass


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_vault_signs_for_a_key_of_ours(system: System, pki: Pki, name: str) -> None:
    pki.grant()
    issued = issue(system.vault.connection(Role.SERVER), f"{pki.mount}/broker", name).reveal()
    key, (leaf, *chain) = load_pem_private_key(issued, None), x509.load_pem_x509_certificates(issued)
    assert leaf.public_key() == key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in names] == [name]
    assert x509.load_pem_x509_certificate(pki.ca.encode()) in chain


def test_a_certificate_that_is_refused(system: System, pki: Pki) -> None:
    line = [
        "serve",
        "--listen",
        "https://127.0.0.1:0",
        "--health",
        "",
        "--tls-pki",
        f"{pki.mount}/broker",
        "--tls-name",
    ]
    ended = inside([*line, "localhost"], home=system.home, environment=system.environment)
    assert (ended.code, f"{pki.mount}/sign/broker" in ended.err, "broker vault setup" in ended.err) == (5, True, True)
    system.changes = {"BROKER_TLS_PKI": f"{pki.mount}/broker"}
    assert f"the server role lacks update on {pki.mount}/sign/broker" in system.run("doctor").out
    pki.grant()
    assert "sign/broker" not in system.run("doctor").out
    ended = inside([*line, "other.example"], home=system.home, environment=system.environment)
    assert (ended.code, "does not sign for other.example" in ended.err) == (6, True)
