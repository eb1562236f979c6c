"""Attempts of a role to get more than its row of the matrix; each is made on the wire and fails."""

from __future__ import annotations

import http.client
import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import pytest

from broker.copies import replace
from broker.embedded.up import Embedded
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.layout import right
from broker.vault.logins import FixedToken
from broker.vault.policies import BASE, policy_name
from broker.vault.setup import Wish, apply, plan
from tests.support.matrix import CONSUMER
from tests.support.raw_http import RawVault
from tests.support.vault import TestVault, issue_login, mounted

pytestmark = pytest.mark.slow

REQUESTS: Final = tomllib.loads(Path(__file__).with_name("escalations.toml").read_text())
WHO: Final = (*(role.value for role in Role), CONSUMER)
PLANTED: Final = "pl4nted-in-the-other-account"
OURS: Final = "ours-to-read"


@dataclass(frozen=True, slots=True)
class Reach:
    """A mount whose roles reach the secrets of mzp-1 alone, and one like it beside it."""

    vault: TestVault
    beside: str
    entity: str


@pytest.fixture(scope="module")
def reach(vault_server: tuple[Embedded, Connection]) -> Iterator[Reach]:
    with mounted(vault_server) as vault, mounted(vault_server) as beside, ExitStack() as stack:
        apply(vault.admin, plan(vault.admin, Wish(accounts=("mzp-1",))))
        for path in ("keys/{}/1", "passwords/{}/1"):
            vault.admin.create(path.format("mzp-1"), {"text": OURS})
            for other in ("mzp-2", "mzp-11", "mzp"):
                vault.admin.create(path.format(other), {"text": PLANTED})
            beside.admin.create(path.format("mzp-1"), {"text": PLANTED})
        for made in (f"transit-{vault.settings.mount}", f"kv-{vault.settings.mount}"):
            vault.admin.call("POST", f"sys/mounts/{made}", {"type": made.partition("-")[0]})
            stack.callback(vault.admin.call, "DELETE", f"sys/mounts/{made}")
        vault.admin.call("POST", f"transit-{vault.settings.mount}/keys/mzp-1", {"type": "rsa-2048"})
        vault.admin.call("POST", f"kv-{vault.settings.mount}/x", {"text": PLANTED})
        vault.consumer_token("fleet", right("stellantis", "standin", "mzp-1", "app"))
        entity = vault.admin.ask("GET", f"identity/entity/name/{vault.settings.mount}/fleet")["data"]["id"]
        yield Reach(vault, beside.settings.mount, entity)


@contextmanager
def on_the_wire(vault: TestVault, role: str) -> Iterator[RawVault]:
    with closing(RawVault(Path(str(vault.settings.socket)), vault.token(role))) as raw:
        yield raw


TRICKS: Final = (  # of a path below <mount>/data: what leads from mzp-1, or from nowhere, to another's secret
    "{}/+/1", "{}/*/1", "{}/*", "{}/mzp-1*/1", "{}/mzp-1+/1", "{}/mzp-/1", "{}/mzp-1/1/../../mzp-2/1",
    "{}/mzp-1/../mzp-2/1", "{}/mzp-1/%2e%2e/mzp-2/1", "{}/mzp-1/%2E%2E/mzp-2/1", "{}/mzp-1/.%2e/mzp-2/1",
    "{}/mzp-1/%252e%252e/mzp-2/1", "{}/mzp-1%2f..%2fmzp-2/1", "{}/mzp-1%2F%2e%2e%2Fmzp-2%2F1", "{}/mzp-1/..%2fmzp-2/1",
    "{}/mzp-1\\..\\mzp-2\\1", "{}/mzp-1/..;/mzp-2/1", "{}//mzp-2/1", "{}/mzp-2//1", "/{}/mzp-2/1", "./{}/mzp-2/1",
    "{}/./mzp-2/1", "{}/mzp-2/1/", "{}/mzp-2/1/.", "{}/mzp-2/%31", "{}/mzp%2d2/1", "{}/%6dzp-2/1", "{}%2fmzp-2%2f1",
    "{}/MZP-2/1", "{}/mzp-2/1%00", "{}/mzp-1%00/../mzp-2/1", "{}/mzp-2/1?version=1", "{}/mzp-2/1?list=true",
    "{}/mzp-2/1?list=false", "{}/mzp-2/1?help=1", "{}/mzp-2/?list=true", "{}/?list=true", "{}/mzp-2/1#/mzp-1/1",
    "{}/mzp-2/1?path={}/mzp-1/1", "{}/mzp-11/1", "{}/mzp/1", "{}/mzp-1/1/../../mzp-11/1", "accounts/../{}/mzp-2/1",
    "accounts/%2e%2e/{}/mzp-2/1", "accounts/x/../../{}/mzp-2/1", "../data/{}/mzp-2/1", "../../{mount}/data/{}/mzp-2/1",
    "../subkeys/{}/mzp-2/1", "../metadata/{}/mzp-2/", "../metadata/{}/mzp-2/1", "evidence/accounts/../../{}/mzp-2/1",
)  # fmt: skip
PREFIXES: Final = ("/v1/", "/v1//", "//v1/", "/v1/./", "/v1/x/../", "/V1/", "/v1/%2e/", "/v1/root/", "/ui/../v1/")
HEADERS: Final = (
    {"X-Vault-Namespace": "root"}, {"X-Vault-Namespace": "/"}, {"X-Vault-Namespace": ".."}, {"X-Vault-Request": "true"},
    {"X-HTTP-Method-Override": "GET"}, {"X-Original-URL": "/v1/sys/health"}, {"X-Forwarded-For": "127.0.0.1"},
    {"X-Vault-Policy-Override": "true"}, {"X-Vault-Wrap-TTL": "60s"}, {"X-Vault-No-Request-Forwarding": "true"},
)  # fmt: skip
SECRETS: Final = ("keys", "passwords")


def assert_nothing_seen(raw: RawVault, targets: Sequence[str], headers: Sequence[dict[str, str]] = ({},)) -> None:
    for target in targets:
        for header in headers:
            for method in ("GET", "LIST", "SCAN"):
                try:
                    reply = raw.send(method, target, headers=header)
                except http.client.InvalidURL:
                    continue  # what cannot even be written
                assert PLANTED.encode() not in reply.body, f"{method} {target} {header}"
                hint = (b"mzp-2" in reply.body or b"mzp-11" in reply.body) and "help=" not in target  # help: an echo
                assert reply.status != 200 or not hint, f"{method} {target} {header} names another's secret"


@pytest.mark.parametrize("role", WHO)
def test_no_spelling_reaches_other_secrets(reach: Reach, role: str) -> None:
    mount = reach.vault.settings.mount
    with on_the_wire(reach.vault, role) as raw:
        if role in (Role.SERVER.value, Role.CANARY.value):
            assert OURS.encode() in raw.send("GET", f"{mount}/data/keys/mzp-1/1").body
        for kind in SECRETS:
            assert_nothing_seen(raw, [f"{mount}/data/{t.format(kind, kind, mount=mount)}" for t in TRICKS])
            plain = f"{mount}/data/{kind}/mzp-2/1"
            assert_nothing_seen(raw, [f"{prefix}{plain}" for prefix in PREFIXES])
            assert_nothing_seen(raw, [plain], HEADERS)
            assert_nothing_seen(
                raw, [f"{reach.beside}/data/{kind}/mzp-1/1", f"{mount}/../{reach.beside}/data/{kind}/mzp-1/1"]
            )


@pytest.mark.parametrize("role", WHO)
def test_no_spelling_overwrites_a_secret(reach: Reach, role: str) -> None:
    vault, kind = reach.vault, "keys"
    body = {"data": {"text": "mine"}, "options": {"cas": 1}}
    with on_the_wire(vault, role) as raw:
        for trick in TRICKS:
            target = f"{vault.settings.mount}/data/{trick.format(kind, kind, mount=vault.settings.mount)}"
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                raw.send(method, target, body)
    for path, text in (("keys/mzp-1/1", OURS), ("keys/mzp-2/1", PLANTED), ("keys/mzp-11/1", PLANTED)):
        assert vault.admin.read(path).data == {"text": text}
        assert vault.admin.versions(path) == {1: True}


@pytest.mark.parametrize(
    ("role", "path"),
    [
        (Role.ROTATOR, "keys/mzp-1/7"),
        (Role.OPERATOR, "passwords/mzp-1/7"),
        (Role.OPERATOR, "secrets/mzp-1/hmac/7"),
        (Role.ROTATOR, "evidence/accounts/mzp-1/00000007"),
        (Role.OPERATOR, "evidence/accounts/mzp-1/00000007"),
        (Role.SERVER, "evidence/issued/host-1/00000007"),
        (Role.SERVER, "signers/lease"),
        (Role.ANCHOR, "signers/anchor"),
        (Role.ANCHOR, "evidence/heads/00000007"),
    ],
)
def test_created_document_cannot_be_changed(vault: TestVault, role: Role, path: str) -> None:
    mount = vault.settings.mount
    data, second = f"{mount}/data/{path}", {"text": "second"}
    with on_the_wire(vault, role.value) as raw:
        assert raw.send("POST", data, {"data": second}).status == 400, "without cas nothing may be created"
        assert raw.send("POST", data, {"data": {"text": "first"}, "options": {"cas": 0}}).status == 200

        def refused_everywhere() -> None:
            for method in ("POST", "PUT"):
                for options in ({}, {"cas": 0}, {"cas": 1}, {"cas": -1}, {"cas": None}, None):
                    assert raw.send(method, data, {"data": second, "options": options}).refused
            assert raw.patch(data, {"data": second, "options": {"cas": 1}}).refused
            assert raw.send("DELETE", data).refused
            for other in ("delete", "undelete"):
                assert raw.send("POST", f"{mount}/{other}/{path}", {"versions": [1]}).refused
            for body in ({"max_versions": 1}, {"cas_required": False}, {"delete_version_after": "1s"}, {}):
                assert raw.send("POST", f"{mount}/metadata/{path}", body).refused
                assert raw.patch(f"{mount}/metadata/{path}", body).refused
                assert raw.send("POST", f"{mount}/config", body).refused
            assert raw.send("DELETE", f"{mount}/metadata/{path}").refused

        refused_everywhere()
        assert vault.admin.read(path).data == {"text": "first"}
        vault.admin.call("DELETE", data)  # softly, by an administrator
        refused_everywhere()
        vault.admin.call("POST", f"{mount}/destroy/{path}", {"versions": [1]})
        refused_everywhere()
        assert vault.admin.versions(path) == {1: False}


def test_destroyed_key_does_not_come_back(vault: TestVault) -> None:
    """Its one destructive right removes data, never the number: another key cannot take its place."""
    path = "keys/mzp-1/7"
    vault.admin.create(path, {"text": "first"})
    with on_the_wire(vault, Role.ROTATOR.value) as raw:
        assert raw.send("POST", f"{vault.settings.mount}/destroy/{path}", {"versions": [1]}).status == 204
        for cas in (0, 1, 2):
            body = {"data": {"text": "second"}, "options": {"cas": cas}}
            assert raw.send("POST", f"{vault.settings.mount}/data/{path}", body).refused
        assert raw.send("POST", f"{vault.settings.mount}/undelete/{path}", {"versions": [1]}).refused


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("role", WHO)
def test_no_role_reaches_what_gives_rights(reach: Reach, role: str, kind: str) -> None:
    named = {who: who if who != CONSUMER else "consumer-any" for who in WHO}  # as its policy and its login are called
    with on_the_wire(reach.vault, role) as raw:
        for line in REQUESTS[kind]:
            for other in WHO if "$other" in line else (role,):
                names = {"mount": reach.vault.settings.mount, "beside": reach.beside, "entity": reach.entity}
                method, _, rest = Template(line).substitute(names, role=named[role], other=named[other]).partition(" ")
                target, _, text = rest.partition(" ")
                body = json.loads(text) if text else None
                reply = raw.patch(target, body) if method == "PATCH" else raw.send(method, target, body)
                assert reply.refused, f"{method} {target} {text}: {reply.status} {reply.body[:200]!r}"


@pytest.mark.parametrize("role", Role)
def test_secret_id_is_for_one_role(reach: Reach, role: Role) -> None:
    """A changed identity does not help: another role's, none, or one in another form."""
    vault = reach.vault
    own = issue_login(vault.admin, role.value)
    others = [issue_login(vault.admin, other.value).role_id for other in Role if other is not role]
    with closing(RawVault(Path(str(vault.settings.socket)), Secret(""))) as nobody:

        def logs_in(mount: str, role_id: object, secret_id: object) -> bool:
            return (
                nobody.send("POST", f"auth/{mount}/login", {"role_id": role_id, "secret_id": secret_id}).status == 200
            )

        secret_id = own.secret_id.reveal()
        assert logs_in(own.mount, own.role_id, secret_id)
        for role_id in (*others, role.value, "", "*", own.role_id[:-1], f"{own.role_id}\x00", None):
            assert not logs_in(own.mount, role_id, secret_id), role_id
        assert not logs_in(reach.beside, own.role_id, secret_id)
        assert not logs_in(own.mount, own.role_id, "")
        assert not logs_in(own.mount, own.role_id, own.role_id)


@pytest.mark.parametrize("role", Role)
def test_role_token_has_two_policies(reach: Reach, role: Role) -> None:
    vault = reach.vault
    found = vault.admin.ask("POST", "auth/token/lookup", {"token": vault.token(role.value)})["data"]
    assert set(found["policies"]) == {policy_name(vault.settings.mount, name) for name in (BASE, role.value)}
    assert not found.get("identity_policies")
    assert (found["num_uses"], found["type"]) == (0, "service")


@pytest.mark.parametrize("role", WHO)
def test_roles_end_at_their_namespace(reach: Reach, role: str) -> None:
    vault, space = reach.vault, f"space-{reach.vault.settings.mount}-{role}"
    vault.admin.call("POST", f"sys/namespaces/{space}", {})
    token = vault.admin.tokens
    assert token is not None
    inside = Connection(replace(vault.settings, namespace=space), FixedToken(token.token()))
    apply(inside, plan(inside, Wish()))
    inside.create("accounts/mzp-1", {"text": PLANTED})
    path = f"{vault.settings.mount}/data/accounts/mzp-1"
    with on_the_wire(vault, role) as raw:
        assert raw.send("GET", path, headers={"X-Vault-Namespace": space}).refused
        assert raw.send("GET", f"{space}/{path}").refused
        assert raw.send("LIST", f"{space}/{vault.settings.mount}/metadata/accounts/").refused
    inside.close()
    vault.admin.call("DELETE", f"sys/namespaces/{space}")
