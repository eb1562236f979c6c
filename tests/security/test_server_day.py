"""A day in the life of a service, on a vault with an audit log: what it asked of Vault, and where secrets went."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from partner_standin import Standin

from broker.embedded.config import Options
from broker.embedded.up import administered
from broker.model.names import account_name
from broker.model.secret import Secret
from broker.partners.catalogue import builtin_source
from broker.vault import layout
from broker.vault.layout import right
from tests.support.audited import ROOT, Run, kept
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.proxy import Cue, Fault, proxied
from tests.support.replicas import Replica, Replicas, replicas
from tests.support.secret_marks import Marks
from tests.support.system import LOGIN, PASSWORD, SUBJECT, System, made_system
from tests.support.vault import admin_token, mounted, throwaway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
HMAC: Final = "hmac-pl4nted/of+the=service"
BODY: Final = {"account": "acme", "application": "reporting", "ttl": "30m"}


@dataclass
class Day:
    """What is left of it: Vault's log and documents, all answers that are no bundle, and what the service logged."""

    run: Run
    secrets: list[Marks]
    refusals: list[bytes] = field(default_factory=list)
    metrics: list[bytes] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    directory = tmp_path_factory.mktemp("day")
    with ExitStack() as stack:
        embedded = stack.enter_context(throwaway(Options(audit=True)))
        vault = stack.enter_context(mounted((embedded, stack.enter_context(administered(embedded)))))
        partner = stack.enter_context(Standin(directory / "partner", accounts={LOGIN: PASSWORD}))
        system = stack.enter_context(made_system(vault, partner))
        _account(system)
        made = Day(Run("", directory, directory), [])
        _play(system, made)
        made.run = kept(embedded, vault.admin, directory)
        made.secrets += list(_stored(system))
        yield made


def _account(system: System) -> None:
    """An account with a profile of its own and a named secret, which are read from Vault."""
    own = builtin_source("stellantis").replace('name = "stellantis"', 'name = "mine"')
    (system.home / "mine.toml").write_text(own)
    system.ok("partner", "add", "mine.toml")
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    system.ok(
        "account", "add", "acme", "--profile", "mine", "--environment", "stand-in", "--base-url",
        system.partner.api_url, "--login", LOGIN, "--contact", "desk@partner.example", *subject,
    )  # fmt: skip
    system.ok("password", "set", "acme", "--password-file", "-", input=PASSWORD)
    system.ok("app", "add", "acme/reporting")
    system.ok("csr", "new", "acme")
    system.ok("cert", "import", "acme", str(system.reply()), *system.accepting(), "--client-id-for", "reporting")
    system.ok("rotation", "promote", "acme")
    with system.broker() as broker:
        broker.registry.set_secret(account_name("acme"), Secret(HMAC), "hmac")
    system.ok("rotation", "promote", "acme")


def _consumer(system: System, name: str, application: str = "reporting") -> dict[str, str]:
    path = right("mine", "stand-in", "acme", application)
    return {"X-Vault-Token": system.vault.consumer_token(name, path).reveal()}


def _ci(system: System) -> dict[str, str]:
    """Return the header of a CI job, whose issuer is in the configuration from now on."""
    issuer, mount = Issuer("https://ci.example"), f"{system.vault.settings.mount}-jwt/ci"
    (system.home / "ci.pem").write_text(issuer.public_pem)
    with (system.home / "broker.toml").open("a") as file:
        file.write(f'\n[issuers.ci]\nissuer = "{issuer.name}"\naudience = "{AUDIENCE}"\nkeys_file = "ci.pem"\n')
    system.changes = {"VAULT_TOKEN": admin_token(system.vault.admin, jwt_mounts=[mount]).reveal()}
    system.ok("vault", "setup")
    system.ok("vault", "enrol", "ci", "--right", "acme/reporting", "--issuer", "ci", "--subject", "job")
    system.changes = {}
    return {"Authorization": f"Bearer {issuer.jwt('job')}"}


def _play(system: System, day: Day) -> None:
    reader, other, ci = _consumer(system, "reader"), _consumer(system, "other", "none"), _ci(system)
    credentials = {"reader": reader, "other": other, "ci": ci}
    for name, header in credentials.items():
        day.secrets.append(Marks(f"credential of {name}", next(iter(header.values())).removeprefix("Bearer ").encode()))
    system.environment |= {"BROKER_LOG_LEVEL": "debug", "BROKER_LOG_FORMAT": "json"}
    with proxied(system.vault.settings.address, lambda _: None) as proxy, replicas(system) as services:
        one = services.start(changes={"VAULT_ADDR": proxy.address, "BROKER_TIMEOUT": "2s"})
        leases = _ask_for_all(one, reader, ci)
        day.secrets += [Marks(f"lease {n}", lease.encode()) for n, lease in enumerate(leases)]
        proxy.plan(Cue(Fault.LOST, path=".*/data/evidence/issued/.*"))
        assert one.post(headers=reader, **BODY).status_code == 201
        _refused(one, day, reader, other, leases)
        proxy.plan(Cue(Fault.FAILED, lasting=True))
        day.refusals += [_whole(one.post(headers=reader, **BODY)) for _ in range(2)]
        proxy.plan()
        _new_generation(system, services)
        two = services.start()
        assert two.get(ci, "/v1/bundles/acme/reporting").status_code == 200
        for replica in (one, two):
            day.metrics.append(httpx.get(f"{replica.health}/metrics", trust_env=False, timeout=30).content)
            for path in ("/readyz", "/readyz/acme", "/livez", "/startz"):
                day.refusals.append(_whole(httpx.get(f"{replica.health}{path}", trust_env=False, timeout=30)))
    day.said += [replica.wait().err.encode() for replica in services.running]


def _ask_for_all(replica: Replica, reader: dict[str, str], ci: dict[str, str]) -> list[str]:
    """Use every route; return the leases."""
    first, second = (replica.post(headers=header, **BODY).json()["lease"] for header in (reader, ci))
    assert replica.get(reader, "/v1/bundles/acme/reporting").status_code == 200
    renewed = replica.post("/v1/leases/renew", reader, lease=first, ttl="40m").json()["lease"]
    assert replica.client.get("/v1/accounts", headers=reader).status_code in (200, 404)
    (held,) = replica.client.get("/v1/leases", headers=ci).json()["leases"]
    names = {name: held[name] for name in ("lease_id", "account", "application")}
    assert replica.post("/v1/leases/revoke", ci, **names).status_code == 204
    heard = replica.post("/v1/wait", reader, account="acme", application="reporting", generation=1)
    assert heard.json()["event"] == "generation"
    assert replica.post("/v1/leases/revoke", reader, lease=renewed).status_code == 204
    return [first, second, renewed]


def _refused(replica: Replica, day: Day, reader: dict[str, str], other: dict[str, str], leases: list[str]) -> None:
    odd: list[dict[str, Any]] = [{**BODY, "ttl": leases[0][:200]}, {**BODY, "account": reader["X-Vault-Token"]}]
    asked = [("/v1/bundles", reader, body) for body in odd]
    asked += [("/v1/bundles", header, BODY) for header in (other, {"X-Vault-Token": f"{reader['X-Vault-Token']}x"}, {})]
    asked += [("/v1/leases/renew", header, {"lease": lease}) for header in (reader, other) for lease in leases[1:]]
    asked += [
        ("/v1/leases/renew", reader, {"lease": leases[0] + "x"}),
        ("/v1/leases/renew", reader, {"leese": leases[0]}),
    ]
    asked += [
        (f"/v1/{leases[1]}", reader, BODY),
        ("/v1/bundles", {**reader, **other, "Authorization": "Bearer x"}, BODY),
    ]
    for path, header, body in asked:
        answer = replica.client.post(path, json=body, headers=header)
        assert answer.status_code >= 400, (path, body)
        day.refusals.append(_whole(answer))


def _whole(answer: httpx.Response) -> bytes:
    return repr(answer.headers.multi_items()).encode() + answer.content


def _new_generation(system: System, services: Replicas) -> None:
    services.run("csr", "new", "acme")
    services.run("cert", "import", "acme", str(system.reply()))
    services.run("rotation", "promote", "acme")


def _stored(system: System) -> Iterator[Marks]:
    admin = system.vault.admin
    yield Marks("password", PASSWORD.encode())
    yield Marks("hmac", HMAC.encode())
    for slot in admin.list("keys/acme"):
        key = load_der_private_key(base64.b64decode(admin.read(f"keys/acme/{slot}").data["value"]["pkcs8"]), None)
        assert isinstance(key, RSAPrivateKey)
        yield Marks(f"d of key {slot}", key.private_numbers().d.to_bytes(512)[-200:-150])
        yield Marks(f"p of key {slot}", key.private_numbers().p.to_bytes(256)[-100:-50])
    for number, text in admin.read(layout.signer("lease")).data["value"]["keys"].items():
        yield Marks(f"key {number} that signs leases", base64.b64decode(text if isinstance(text, str) else text["key"]))
    for file in (system.home / "roles" / "server").iterdir():
        if file.name == "secret_id":
            yield Marks("secret-id of server", file.read_bytes())


def test_the_service_asks_exactly_its_row(day: Day, tmp_path: Path) -> None:
    """Every grant of the server's policy was used, and nothing else was asked for.

    Not used on such a day: the folder of profiles, which is listed to say which name may be meant, and the versions of
    the key that signs leases, which are looked at if two replicas make the first one.
    """
    elsewhere = ("metadata/profiles/", "metadata/signers/lease")
    policy = (ROOT / "policies" / "server.hcl").read_text().splitlines()
    (tmp_path / "server.hcl").write_text("\n".join(line for line in policy if not any(e in line for e in elsewhere)))
    code, found = day.run.audited("--grants", str(tmp_path))
    assert not code, found


@pytest.mark.parametrize("channel", ["refusals", "metrics", "said"])
def test_no_secret_is_in(day: Day, channel: str) -> None:
    """What callers are refused with, what is measured, and what is logged, at level debug."""
    texts: list[bytes] = getattr(day, channel)
    assert sum(map(len, texts)) > 1000, "a search of nothing finds nothing"
    assert len(day.secrets) >= 10
    assert not [(mark.name, text) for mark in day.secrets for text in texts if mark.found_in(text)]


def test_no_secret_is_in_vaults_log(day: Day) -> None:
    log = day.run.log.read_bytes()
    stored = [mark for mark in day.secrets if not mark.name.startswith("credential")]
    assert not [mark.name for mark in stored if mark.found_in(log)]


def test_the_log_has_what_an_operator_needs(day: Day) -> None:
    """A control: these are the lines of the service, with who, which and why."""
    text = b"\n".join(day.said).decode()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {"account", "lease", "consumer", "generation"} <= {name for line in lines for name in line}
    assert {line.get("status") for line in lines} >= {201, 403, 503}
