"""`broker serve` in its own process, with a real vault: bundles for tokens and JWTs, drained on a signal."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from broker.model.names import AccountName
from tests.support.issuer import Issuer, trusting
from tests.support.system import PASSWORD, System

pytestmark = pytest.mark.slow

ASKED: Final = {"account": "acme", "application": "reporting", "ttl": "5m"}
ISSUER: Final = "https://ci.example"


@dataclass
class Service:
    """A running service: its addresses, and its process."""

    process: subprocess.Popen[bytes]
    addresses: list[str]
    lines: list[str]  # of stderr; all of it once the process has ended

    @property
    def client(self) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=self.addresses[0], trust_env=False, timeout=30)

    def ask(self, path: str = "/v1/bundles", headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
        """POST a message."""
        with self.client as client:
            return client.post(path, json=body or ASKED, headers=headers or {})

    def ready(self) -> httpx.Response:
        """Return the answer of /readyz."""
        return httpx.get(f"{self.addresses[1]}/readyz", trust_env=False, timeout=30)


@contextmanager
def serving(system: System, *options: str) -> Iterator[Service]:
    """Start a service, yield it once it listens, and end it."""
    arguments = ["serve", "--health", "127.0.0.1:0", *options]
    if "--listen" not in options:
        arguments += ["--listen", "127.0.0.1:0"]
    with system.start(*arguments, stdout=subprocess.DEVNULL) as process:
        assert process.stderr
        addresses: list[str] = []
        lines: list[str] = []
        while len(addresses) < 2:
            line = process.stderr.readline().decode()
            assert line, "".join(lines)
            lines.append(line)
            addresses += re.findall(r"^listening on (\S+)", line)
        rest = threading.Thread(target=lambda: lines.append(process.stderr.read().decode()))  # type: ignore[union-attr]
        rest.start()
        try:
            yield Service(process, addresses, lines)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
            rest.join()
            assert "Traceback" not in "".join(lines), "".join(lines)


@pytest.fixture
def token(system: System) -> dict[str, str]:
    """A promoted account, and a header with the token of its consumer."""
    system.promoted()
    return {"X-Vault-Token": system.consumer("acme/reporting").read_text()}


def holders(system: System) -> frozenset[str]:
    with system.broker() as broker:
        return broker.stragglers(AccountName("acme"), 1)


def test_a_bundle_from_grant_to_revocation(system: System, token: dict[str, str]) -> None:
    with serving(system) as service:
        assert service.ready().status_code == 200
        answer = service.ask(headers=token)
        assert answer.status_code == 201, answer.text
        bundle = answer.json()
        assert bundle["secrets"] == {"password": PASSWORD}
        assert len(holders(system)) == 1
        renewed = service.ask("/v1/leases/renew", token, lease=bundle["lease"], ttl="10m").json()
        assert renewed["expires"] > bundle["expires"]
        assert service.ask("/v1/leases/revoke", token, lease=renewed["lease"]).status_code == 204
        assert service.ask("/v1/leases/renew", token, lease=bundle["lease"]).status_code == 403
        assert not holders(system)
        ended = service.ask(headers=token).json()
        system.ok("lease", "revoke", ended["lease_id"], "--reason", "a test")
        assert service.ask("/v1/leases/renew", token, lease=ended["lease"]).status_code == 403
        system.ok("lease", "key", "rotate")
        again = service.ask(headers=token).json()
        assert service.ask("/v1/leases/renew", token, lease=again["lease"]).status_code == 200
    assert service.process.returncode == 0
    system.ok("evidence", "verify", "--all")
    shown = system.ok("evidence", "show", "--all").out
    assert "bundle-issued" in shown
    assert "lease-renewed" in shown
    assert "bundle-returned" in shown


def test_many_leases_are_given_back_at_once(system: System, token: dict[str, str]) -> None:
    """All processes of one consumer are stopped together: no end of a lease is lost to the others."""
    with serving(system) as service, service.client as client, ThreadPoolExecutor(64) as pool:
        made = [client.post("/v1/bundles", json=ASKED, headers=token).json() for _ in range(64)]
        which = {"account": "acme", "application": "reporting"}
        bodies = [{"lease_id": one["lease_id"], **which} for one in made]
        answers = pool.map(lambda body: client.post("/v1/leases/revoke", json=body, headers=token), bodies)
        assert {answer.status_code for answer in answers} == {204}
        answers = pool.map(lambda one: service.ask("/v1/leases/renew", token, lease=one["lease"]), made)
        assert {answer.status_code for answer in answers} == {403}
        assert system.ok("evidence", "show", "--all").out.count("bundle-returned") == 64
    system.ok("evidence", "verify", "--all")


def test_health_and_metrics(system: System, token: dict[str, str]) -> None:
    with serving(system) as service, httpx.Client(base_url=service.addresses[1], trust_env=False) as health:
        assert service.ask(headers=token).status_code == 201
        assert service.ask(headers=token, account="acme", application="planted-name").status_code == 403
        assert service.ask("/planted-path", headers=token).status_code == 404
        for path, status in {"/livez": 200, "/startz": 200, "/readyz/acme": 200, "/readyz/none": 404}.items():
            assert health.get(path).status_code == status, path
        text = health.get("/metrics").text
        while "x509_cert_not_after{" not in text:  # the first round in the background
            text = health.get("/metrics").text
        found = {(s.name, *sorted(s.labels.values())): s.value for f in parsed(text) for s in f.samples}
        assert found["credential_broker_bundles_issued_total",] == 1
        assert found["credential_broker_refusals_total", "403", "denied"] == 1
        assert found["credential_broker_requests_total", "4xx", "none"] == 1
        assert found["credential_broker_vault_requests_total", "2xx"] > 5
        assert found["credential_broker_login_expires_timestamp_seconds",] > time.time()
        assert found["x509_cert_not_after", "1", "acme", "current"] > time.time()
        assert "planted" not in text
        assert PASSWORD not in text
        assert token["X-Vault-Token"] not in text
        system.ok("account", "suspend", "acme", "--reason", "a test")
        while health.get("/readyz/acme").status_code != 503:
            pass
        assert "suspended" in health.get("/readyz/acme").json()["message"]
        assert health.get("/readyz").status_code == 200


def test_requests_are_logged_as_json(system: System, token: dict[str, str]) -> None:
    with serving(system) as service:
        lease = service.ask(headers=token).json()["lease_id"]
    text = "".join(service.lines)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["status"], line["account"], line["lease"]) == (201, "acme", lease)
    (evidence,) = [line for line in lines if line["event"] == "bundle-issued"]
    assert evidence["lease"] == lease
    assert PASSWORD not in text
    assert token["X-Vault-Token"] not in text
    system.changes = {"BROKER_LOG_LEVEL": "warning"}
    with serving(system) as service:
        service.ask(headers=token)
    assert not [line for line in service.lines if line.startswith("{")]


def test_the_bundle_works_at_the_partner(system: System, token: dict[str, str], tmp_path: Path) -> None:
    with serving(system) as service:
        bundle = service.ask(headers=token).json()
    files = {"key": bundle["key"], "certificate": bundle["certificate"], "ca": bundle["trust"]}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    answer = httpx.get(
        f"{bundle['base_url']}/fleets",
        params={"client_id": bundle["client_id"]},
        auth=(bundle["login"], bundle["secrets"]["password"]),
        verify=context,
        trust_env=False,
    )
    assert answer.status_code == 200


def test_tokens_without_the_right_get_one_answer(system: System, token: dict[str, str]) -> None:
    other = {"X-Vault-Token": system.consumer("acme/other", name="other").read_text()}
    with serving(system) as service:
        answers = [
            service.ask(headers=other),
            service.ask(headers={"X-Vault-Token": "s.unknown"}),
            service.ask(headers=token, account="none", application="reporting"),
            service.ask(headers=token, account="acme", application="none"),
        ]
    shown = [{k: v for k, v in answer.json().items() if k != "request"} for answer in answers]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert all(one == shown[0] for one in shown)


@dataclass
class Ci:
    """An issuer of JWTs that the system's vault trusts."""

    issuer: Issuer

    def jwt(self, **claims: object) -> dict[str, str]:
        """Return a header with a token of the job `deploy`."""
        return {"Authorization": f"Bearer {self.issuer.jwt('repo:deploy', **claims)}"}


@pytest.fixture
def ci(system: System, token: dict[str, str]) -> Iterator[Ci]:
    """An issuer of the configuration, set up, with a consumer for the job `deploy`."""
    with trusting(system, {"ci": "repo:deploy"}) as made:
        yield Ci(made["ci"])


def test_a_jwt_is_an_identity(system: System, token: dict[str, str], ci: Ci) -> None:
    with serving(system) as service:
        presented = ci.jwt()
        first, second = (service.ask(headers=presented) for _ in range(2))
        assert (first.status_code, second.status_code) == (201, 201), first.text
        lease = first.json()["lease"]
        assert service.ask("/v1/leases/renew", token, lease=lease).status_code == 403, "the lease is another entity's"
        assert service.ask("/v1/leases/renew", ci.jwt(jti="2"), lease=lease).status_code == 200
    assert not live_tokens(system), "exchanged tokens are revoked when the service ends"


def live_tokens(system: System) -> list[str]:
    """Return the paths that living tokens of JWT logins were made at."""
    admin = system.vault.admin
    accessors = admin.ask("LIST", "auth/token/accessors")["data"]["keys"]
    paths = []
    for accessor in accessors:
        found: Any = admin.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})
        paths.append(found["data"]["path"])
    return [path for path in paths if path.startswith(f"auth/{system.vault.settings.mount}-jwt/ci/")]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"sub": "repo:other"},
        {"iss": "https://other.example"},
        {"exp": 1},
        {"nbf": 4_000_000_000},
    ],
)
def test_a_wrong_jwt_is_refused(system: System, token: dict[str, str], ci: Ci, claims: dict[str, object]) -> None:
    forger = Ci(Issuer(ISSUER))
    with serving(system) as service:
        for presented in (ci.jwt(**claims), forger.jwt(), {"Authorization": "Bearer x"}):
            assert service.ask(headers=presented).status_code == 403


def test_a_disabled_entity_is_refused(system: System, token: dict[str, str], ci: Ci) -> None:
    admin = system.vault.admin
    with serving(system) as service:
        assert service.ask(headers=ci.jwt()).status_code == 201
    names = admin.ask("LIST", "identity/entity/id")["data"]["keys"]
    for name in names:
        entity = admin.ask("GET", f"identity/entity/id/{name}")["data"]
        if any(alias["name"] == "repo:deploy" for alias in entity["aliases"] or ()):
            admin.call("POST", f"identity/entity/id/{name}", {"disabled": True})
    with serving(system) as service:
        assert service.ask(headers=ci.jwt()).status_code == 403


def test_many_at_once_get_leases_of_their_own(system: System, token: dict[str, str]) -> None:
    with serving(system) as one, serving(system) as two, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: (one, two)[n % 2].ask(headers=token), range(64)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["lease_id"] for answer in answers}) == 64
        with one.client as client:
            key = {**token, "Idempotency-Key": "k"}
            again = [client.post("/v1/bundles", json=ASKED, headers=key).json()["lease_id"] for _ in range(2)]
            again.append(two.ask(headers=key).json()["lease_id"])
        assert len(set(again)) == 1
    system.ok("evidence", "verify", "--all")


def test_a_promotion_is_followed(system: System, token: dict[str, str]) -> None:
    system.ok("csr", "new", "acme")
    system.ok("cert", "import", "acme", str(system.reply()))
    with serving(system) as service:
        lease = service.ask(headers=token).json()["lease"]
        system.ok("rotation", "promote", "acme")
        while service.ask(headers=token).json()["generation"] != 2:
            pass
        renewed = service.ask("/v1/leases/renew", token, lease=lease).json()
        assert (renewed["generation"], renewed["newer"]) == (1, 2)
        assert system.run("rotation", "retire", "acme", "--generation", "1").code == 7, "its lease is not over"


def test_a_signal_answers_open_requests_first(system: System, token: dict[str, str]) -> None:
    with serving(system) as service:
        host, port = re.findall(r"//(.*):(\d+)", service.addresses[0])[0]
        with socket.create_connection((host, int(port)), 30) as slow:
            body = json.dumps(ASKED).encode()
            head = f"POST /v1/bundles HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: {token['X-Vault-Token']}\r\n"
            slow.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
            assert service.ask(headers=token).status_code == 201  # so the slow request has been read too
            service.process.send_signal(signal.SIGTERM)
            slow.sendall(body[10:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 201")
        assert service.process.wait(30) == 0


def test_a_unix_socket(system: System, token: dict[str, str]) -> None:
    path = system.home / "broker.sock"
    for _ in range(2):  # the second meets nothing that the first left
        with serving(system, "--listen", f"unix://{path}") as service:
            assert path.stat().st_mode & 0o777 == 0o660
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://broker") as client:
                assert client.post("/v1/bundles", json=ASKED, headers=token).status_code == 201
            assert service.addresses[0] == f"unix://{path}"
        assert not path.exists()


def test_bundle_get_takes_it_from_the_service(system: System, token: dict[str, str], ci: Ci) -> None:
    """With no login of this host, a token file or a JWT; each lease is given back as its files go."""
    (system.home / "jwt").write_text(ci.jwt()["Authorization"].split()[1])
    (system.home / "jwt").chmod(0o600)
    with serving(system) as service:
        alone = {"BROKER_CONFIG": str(system.home / "none.toml"), "BROKER_ADDR": service.addresses[0], "VAULT_ADDR": ""}
        (system.home / "none.toml").write_text("version = 1\n")
        system.changes = {**alone, "BROKER_AUTH": "jwt-file:jwt"}
        got = system.ok("bundle", "get", "acme/reporting", "--to", "bundle", "--ttl", "5m")
        assert f"through {service.addresses[0]}" in got.err
        got_manifest = (system.home / "bundle/current/manifest.json").read_bytes()
        shown = system.ok("status", "-o", "json").json
        assert [(one["application"], one["state"]) for one in shown] == [("reporting", "ready")]
        assert (system.home / "bundle/current/password").read_text() == PASSWORD
        renewed = system.ok("lease", "renew", "bundle", "--ttl", "30m", "-o", "json").json
        assert system.ok("lease", "show", "bundle", "-o", "json").json["until"] == renewed["until"]
        assert renewed["until"] > json.loads(got_manifest)["expires"]
        system.ok("lease", "revoke", "bundle")
        assert not list((system.home / "bundle").iterdir())
        held = system.start(
            "bundle", "get", "acme/reporting", "--consumer-token-file", "reader.token", "--to", "held", "--hold"
        )
        with held:
            assert held.stdout
            assert held.stdout.readline()
            held.send_signal(signal.SIGTERM)
            assert held.wait(30) == 0
        assert not list((system.home / "held").iterdir())
        system.changes = {**alone, "BROKER_AUTH": "jwt-env:NONE"}
        assert system.run("bundle", "get", "acme/reporting", "--to", "bundle").code == 2
        system.changes = {**alone, "BROKER_ADDR": "http://192.0.2.1:1", "BROKER_AUTH": "jwt-file:jwt"}
        refused = system.run("bundle", "get", "acme/reporting", "--to", "bundle")
        assert (refused.code, "is not loopback" in refused.err) == (2, True)
        system.changes = {}
    shown = system.ok("evidence", "show", "--all").out
    assert (shown.count("lease-renewed"), shown.count("bundle-returned")) == (1, 2)


def test_a_caller_lists_what_it_may_use(system: System, token: dict[str, str]) -> None:
    system.added("other")
    both = {"X-Vault-Token": system.consumer("acme/reporting", "other/reporting", name="both").read_text()}
    none = {"X-Vault-Token": system.consumer("none/none", name="none").read_text()}
    with serving(system) as service, service.client as client:
        answer = client.get("/v1/accounts", headers=both)
        assert answer.status_code == 200, answer.text
        acme, other = answer.json()["applications"]
        assert set(acme) == {"account", "application", "state", "generation", "not_after"}
        assert (acme["account"], acme["state"], acme["generation"]) == ("acme", "ready", 1)
        empty = {"state": "pending", "generation": None, "not_after": None}
        assert other == {"account": "other", "application": "reporting", **empty}
        assert [one["account"] for one in client.get("/v1/accounts", headers=token).json()["applications"]] == ["acme"]
        answers = [client.get("/v1/accounts", headers=h) for h in (none, {"X-Vault-Token": "s.unknown"})]
        assert [one.status_code for one in answers] == [403] * 2
        first, second = ({k: v for k, v in one.json().items() if k != "request"} for one in answers)
        assert first == second
        assert client.get("/v1/accounts?all=1", headers=token).status_code == 400
