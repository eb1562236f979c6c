"""Every reason to refuse a consumer, with a token that tries to get past it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from broker.copies import replace
from broker.errors import DeniedError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.capabilities import Address, Authorizer, Clause, NotAConsumerError, _sentinels, authorize, permitted
from broker.vault.connection import Connection
from broker.vault.enrolment import consumer_role
from broker.vault.errors import Document
from broker.vault.logins import FixedToken
from broker.vault.policies import policy_name
from broker.vault.settings import VaultSettings
from broker.vault.setup import Wish, apply, plan
from tests.support.scripted_server import Answer, misbehaving
from tests.support.vault import TestVault, a_consumer, issue_login, login, token_of, with_root_token

pytestmark = pytest.mark.slow

RIGHT = layout.right("stellantis", "standin", "mzp-1", "fleet-app")
OTHER = layout.right("stellantis", "standin", "mzp-1", "other-app")


@pytest.fixture
def server(vault: TestVault) -> Connection:
    return vault.connection(Role.SERVER)


def assert_refused(
    clause: Clause, server: Connection, token: Secret[str], right: str = RIGHT, peer: Address | None = None
) -> NotAConsumerError:
    with pytest.raises(NotAConsumerError) as caught:
        authorize(server, token, right, peer=peer)
    assert caught.value.clause is clause
    assert caught.value.hint
    shown = token.reveal().strip()
    assert not shown or shown not in f"{caught.value!r} {caught.value.hint}"
    return caught.value


def with_policy(vault: TestVault, name: str, hcl: str, **role: object) -> Secret[str]:
    """Log a new consumer in with one more policy and other settings of its role."""
    enrolled = a_consumer(vault.admin, name, [RIGHT])
    policy = f"{vault.settings.mount}-extra-{name}"
    vault.admin.call("POST", f"sys/policies/acl/{policy}", {"policy": hcl})
    path = f"auth/{enrolled.mount}/role/{consumer_role(name)}"
    policies = vault.admin.ask("GET", path)["data"]["token_policies"]
    vault.admin.call("POST", path, {"token_policies": [*policies, policy], **role})
    return login(vault.admin, enrolled)


def test_consumer_has_entity_and_name(vault: TestVault, server: Connection) -> None:
    token = vault.consumer_token("fleet", RIGHT)
    consumer = authorize(server, token, RIGHT, peer=None)
    assert consumer.name == f"{vault.settings.mount}/fleet"
    again = authorize(server, vault.consumer_token("fleet", RIGHT), RIGHT, peer=ip_address("192.0.2.1"))
    assert again.entity == consumer.entity


def test_right_is_for_one_application(vault: TestVault, server: Connection) -> None:
    refused = assert_refused(Clause.NO_RIGHT, server, vault.consumer_token("fleet", RIGHT), OTHER)
    assert OTHER in refused.message


def test_enrolling_again_removes_rights(vault: TestVault, server: Connection) -> None:
    token = vault.consumer_token("fleet", RIGHT, OTHER)
    authorize(server, token, OTHER, peer=None)
    a_consumer(vault.admin, "fleet", [RIGHT])
    assert_refused(Clause.NO_RIGHT, server, token, OTHER)


@pytest.mark.parametrize("text", ["", " ", "\n", "s.a b", "s.é", "x" * 9000, "s.a\nX-Vault-Namespace: other"])
def test_malformed_token_is_not_sent(vault: TestVault, server: Connection, text: str) -> None:
    assert_refused(Clause.MALFORMED, server, Secret(text))


@pytest.mark.parametrize("text", ["s.aaaaaaaaaaaaaaaaaaaaaaaa", "hvs.garbage", "garbage"])
def test_an_unknown_token(vault: TestVault, server: Connection, text: str) -> None:
    assert_refused(Clause.UNKNOWN, server, Secret(text))


def test_a_revoked_token(vault: TestVault, server: Connection) -> None:
    token = vault.consumer_token("fleet", RIGHT)
    vault.admin.call("POST", "auth/token/revoke", {"token": token.reveal()})
    assert_refused(Clause.UNKNOWN, server, token)


@pytest.mark.parametrize("path", ["*", "+/+/+/+/+/+", f"{layout.RIGHTS}/*", f"{layout.RIGHTS}/+/+/+/+/+", "+/*"])
def test_a_policy_that_matches_everything(vault: TestVault, server: Connection, path: str) -> None:
    token = with_policy(vault, "wide", f'path "{path}" {{ capabilities = ["update"] }}')
    assert_refused(Clause.TOO_WIDE, server, token)


def test_reading_everything_is_too_wide_too(vault: TestVault, server: Connection) -> None:
    assert_refused(Clause.TOO_WIDE, server, with_policy(vault, "reader", 'path "*" { capabilities = ["read"] }'))


@pytest.mark.parametrize("path", ["*", RIGHT])
def test_sudo(vault: TestVault, server: Connection, path: str) -> None:
    token = with_policy(vault, "sudoer", f'path "{path}" {{ capabilities = ["update", "sudo"] }}')
    where = path if path == RIGHT else "paths that it was not given"
    assert f"the consumer's token has sudo on {where};" in assert_refused(Clause.SUDO, server, token).message


@pytest.mark.parametrize("elsewhere", ["secret/app", "sys/auth/x", RIGHT.replace("mzp-1", "mzp-2")])
def test_sudo_elsewhere_passes(vault: TestVault, server: Connection, elsewhere: str) -> None:
    """Only the right's own path and two random ones are looked at."""
    text = f'path "{RIGHT}" {{ capabilities = ["update"] }}\npath "{elsewhere}" {{ capabilities = ["update", "sudo"] }}'
    assert authorize(server, with_policy(vault, "elsewhere", text), RIGHT, peer=None).entity


def test_denial_of_a_consumer_names_the_remedy(vault: TestVault, server: Connection) -> None:
    refused = assert_refused(Clause.NO_RIGHT, server, vault.consumer_token("fleet", OTHER))
    assert refused.message == f"the consumer's token lacks update on {RIGHT}"
    assert (set(refused.who), refused.who["consumer"]) == ({"consumer", "entity"}, f"{vault.settings.mount}/fleet")
    assert refused.hint.endswith("broker policy check mzp-1/fleet-app --consumer fleet")
    token = vault.consumer_token("other", OTHER)
    for metadata in ({"consumer": "x; reboot"}, {"team": "web"}):  # of an entity that `enrol` did not make
        vault.admin.call("POST", f"identity/entity/name/{vault.settings.mount}/other", {"metadata": metadata})
        hint = assert_refused(Clause.NO_RIGHT, server, token).hint
        assert hint.endswith(f'path "{RIGHT}" {{ capabilities = ["update"] }}')


@pytest.mark.parametrize("extra", ["read", "create", "delete", "list"])
def test_more_than_update(vault: TestVault, server: Connection, extra: str) -> None:
    token = with_policy(vault, "more", f'path "{RIGHT}" {{ capabilities = ["update", "{extra}"] }}')
    assert extra in assert_refused(Clause.TOO_MUCH, server, token).message


def test_less_than_update(vault: TestVault, server: Connection) -> None:
    enrolled = a_consumer(vault.admin, "less", [OTHER])
    policy = policy_name(vault.settings.mount, consumer_role("less"))
    vault.admin.call("POST", f"sys/policies/acl/{policy}", {"policy": f'path "{RIGHT}" {{ capabilities = ["read"] }}'})
    assert_refused(Clause.TOO_MUCH, server, login(vault.admin, enrolled))


def test_a_denied_right(vault: TestVault, server: Connection) -> None:
    token = with_policy(vault, "denied", f'path "{RIGHT}" {{ capabilities = ["deny"] }}')
    assert_refused(Clause.NO_RIGHT, server, token)


def test_a_token_without_an_entity(vault: TestVault, server: Connection) -> None:
    a_consumer(vault.admin, "fleet", [RIGHT])
    policy = policy_name(vault.settings.mount, "consumer-fleet")
    role = f"auth/token/roles/{vault.settings.mount}"
    vault.admin.call("POST", role, {"allowed_policies": [policy], "orphan": True})
    # An orphan token that a role makes has no entity; the parent's would else be inherited
    made = vault.admin.call("POST", f"auth/token/create/{vault.settings.mount}", {"policies": [policy]})["auth"]
    if made["entity_id"]:
        pytest.fail("Vault gave the token an entity: this test needs another way to make one without")
    assert_refused(Clause.NO_ENTITY, server, Secret(made["client_token"]))


def test_a_token_whose_entity_was_deleted(vault: TestVault, server: Connection) -> None:
    token = vault.consumer_token("fleet", RIGHT)
    vault.admin.call("DELETE", f"identity/entity/id/{authorize(server, token, RIGHT, peer=None).entity}")
    assert_refused(Clause.NO_ENTITY, server, token)


def test_a_disabled_entity(vault: TestVault, server: Connection) -> None:
    token = vault.consumer_token("fleet", RIGHT)
    entity = authorize(server, token, RIGHT, peer=None).entity
    vault.admin.call("POST", f"identity/entity/id/{entity}", {"disabled": True})
    assert_refused(Clause.DISABLED, server, token)


def test_kept_lookups_let_nothing_through(vault: TestVault, server: Connection) -> None:
    """A token whose right, entity or life ended is refused, and by name, as soon as it is judged again."""
    token, lasting, ending = (vault.consumer_token(name, RIGHT) for name in ("disabled", "lasting", "ending"))
    judge = Authorizer(server, lambda: 0.0)
    consumers = [judge.authorize(one, RIGHT, peer=None) for one in (token, lasting, ending)]
    assert judge.authorize(token, RIGHT, peer=None) == consumers[0]
    vault.admin.call("POST", f"identity/entity/id/{consumers[0].entity}", {"disabled": True})
    vault.admin.call("POST", "auth/token/revoke", {"token": ending})
    for one, right, clause in (
        (token, RIGHT, Clause.DISABLED),
        (lasting, OTHER, Clause.NO_RIGHT),
        (ending, RIGHT, Clause.UNKNOWN),
    ):
        with pytest.raises(NotAConsumerError) as caught:
            judge.authorize(one, right, peer=None)
        assert caught.value.clause is clause


def test_a_known_token_takes_one_request(vault: TestVault, server: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    token, now = vault.consumer_token("fleet", RIGHT), 0.0
    judge, send = Authorizer(server, lambda: now), server.ask
    asked: list[str] = []

    def noted(method: str, path: str, *more: Any) -> Document:
        asked.append(path)
        return send(method, path, *more)

    monkeypatch.setattr(server, "ask", noted)
    judge.authorize(token, RIGHT, peer=None)
    asked.clear()
    judge.authorize(token, RIGHT, peer=None)
    assert asked == ["sys/capabilities"]
    now = 300.0
    judge.authorize(token, RIGHT, peer=None)
    assert "auth/token/lookup" in asked


def test_a_token_with_limited_uses(vault: TestVault, server: Connection) -> None:
    token = with_policy(vault, "uses", 'path "nowhere/x" { capabilities = ["read"] }', token_num_uses=5)
    assert_refused(Clause.LIMITED_USES, server, token)


def test_a_batch_token(vault: TestVault, server: Connection) -> None:
    token = with_policy(vault, "batch", 'path "nowhere/x" { capabilities = ["read"] }', token_type="batch")
    assert_refused(Clause.BATCH, server, token)


def test_unreadable_policies_are_refused(vault: TestVault, server: Connection) -> None:
    path = RIGHT.replace("/fleet-app/", "/{{identity.entity.metadata.application}}/")
    token = with_policy(vault, "templated", f'path "{path}" {{ capabilities = ["update"] }}')
    entity = f"identity/entity/name/{vault.settings.mount}/templated"
    vault.admin.call("POST", entity, {"metadata": {"application": "*"}})
    assert_refused(Clause.UNREADABLE, server, token)


def test_a_token_of_a_foreign_namespace(vault: TestVault, server: Connection) -> None:
    space = f"foreign-{vault.settings.mount}"
    vault.admin.call("POST", f"sys/namespaces/{space}", {})
    made = vault.admin.call("POST", f"{space}/auth/token/create", {"policies": ["default"]})
    assert_refused(Clause.FOREIGN, server, Secret(made["auth"]["client_token"]))
    vault.admin.call("DELETE", f"sys/namespaces/{space}")


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1", True),
        ("192.0.3.7", False),
        ("2001:db9::1", False),
        ("127.0.0.1", False),
        (None, False),
    ],
)
def test_bound_cidrs_are_compared_with_peer(vault: TestVault, peer: str | None, allowed: bool) -> None:
    found = {"policies": ["x"], "num_uses": 0, "entity_id": "e", "bound_cidrs": ["192.0.2.0/24", "2001:db8::1/64"]}
    answers: tuple[dict[str, object], ...] = (found, {"id": "e", "name": "n", "disabled": False}, {})
    scripted = [Answer(body=_json({"data": answer})) for answer in answers]
    with misbehaving(*scripted) as fake:
        connection = Connection(_at(vault, fake.address), FixedToken(Secret("s.x")))
        with pytest.raises(Exception, match="sys/capabilities" if allowed else "bound to addresses"):
            authorize(connection, Secret("s.y"), RIGHT, peer=ip_address(peer) if peer else None)
        connection.close()


def test_vault_reports_bound_cidrs(vault: TestVault, server: Connection) -> None:
    enrolled = a_consumer(vault.admin, "bound", [RIGHT])
    path = f"auth/{enrolled.mount}/role/{consumer_role('bound')}"
    vault.admin.call("POST", path, {"token_bound_cidrs": ["0.0.0.0/0"]})
    token = login(vault.admin, enrolled)
    assert_refused(Clause.WRONG_ADDRESS, server, token, peer=None)
    authorize(server, token, RIGHT, peer=ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    "found",
    [
        {"policies": ["default", "root"], "num_uses": 0, "entity_id": "e"},
        {"policies": ["root"], "num_uses": 0, "entity_id": ""},
    ],
)
def test_a_root_token_by_name(vault: TestVault, found: dict[str, object]) -> None:
    with misbehaving(Answer(body=_json({"data": found}))) as fake:
        connection = Connection(_at(vault, fake.address), FixedToken(Secret("s.x")))
        assert_refused(Clause.ROOT, connection, Secret("s.y"))
        connection.close()


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"namespace_path": "tenant/"}, Clause.FOREIGN),
        ({"num_uses": 1}, Clause.LIMITED_USES),
        ({"num_uses": None}, Clause.LIMITED_USES),
    ],
)
def test_token_lookup_is_read_strictly(vault: TestVault, change: dict[str, object], clause: Clause) -> None:
    found = {"policies": ["x"], "num_uses": 0, "entity_id": "e", "namespace_path": "", **change}
    with misbehaving(Answer(body=_json({"data": found}))) as fake:
        connection = Connection(_at(vault, fake.address), FixedToken(Secret("s.x")))
        assert_refused(clause, connection, Secret("s.y"))
        connection.close()


def test_sentinel_paths_are_random() -> None:
    """They are others each time, in every part that a policy could deny by name."""
    first, second = ({word for path in _sentinels() for word in path.split("/")} for _ in range(2))
    assert first & second <= set(RIGHT.split("/"))


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.SERVER])
def test_role_without_lookup_right(vault: TestVault, role: Role) -> None:
    with pytest.raises(DeniedError) as caught:
        authorize(vault.connection(role), vault.consumer_token("fleet", RIGHT), RIGHT, peer=None)
    assert not isinstance(caught.value, NotAConsumerError)


def test_broker_token_is_not_a_consumer(vault: TestVault, server: Connection) -> None:
    assert_refused(Clause.NO_RIGHT, server, login_of(server))


def test_real_root_token_is_refused() -> None:
    with with_root_token() as settings:
        assert settings.token
        root = Connection(settings, FixedToken(settings.token))
        apply(root, plan(root, Wish()))
        server = Connection(settings, FixedToken(login(root, issue_login(root, Role.SERVER.value))))
        assert_refused(Clause.ROOT, server, settings.token)
        token = login(root, a_consumer(root, "fleet", [RIGHT]))
        assert authorize(server, token, RIGHT, peer=None).name == "credential-broker/fleet"
        root.close()
        server.close()


def test_namespaces_are_separate(vault: TestVault) -> None:
    space = f"own-{vault.settings.mount}"
    vault.admin.call("POST", f"sys/namespaces/{space}", {})
    inside = Connection(replace(vault.settings, namespace=space), FixedToken(login_of(vault.admin)))
    apply(inside, plan(inside, Wish()))
    server = Connection(inside.settings, FixedToken(login(inside, issue_login(inside, Role.SERVER.value))))
    authorize(server, login(inside, a_consumer(inside, "fleet", [RIGHT])), RIGHT, peer=None)
    with pytest.raises(DeniedError):
        authorize(server, vault.consumer_token("fleet", RIGHT), RIGHT, peer=None)
    server.close()
    inside.close()
    vault.admin.call("DELETE", f"sys/namespaces/{space}")


def test_child_token_keeps_the_entity(vault: TestVault, server: Connection) -> None:
    """Vault hands the entity down, so a child token names the same holder: nothing is gained by making one."""
    token = with_policy(vault, "fleet", 'path "auth/token/create" { capabilities = ["update"] }')
    parent = Connection(vault.settings, FixedToken(token))
    child = token_of(parent)
    assert (
        authorize(server, child, RIGHT, peer=None).entity
        == authorize(server, login_of(parent), RIGHT, peer=None).entity
    )
    parent.close()


def login_of(connection: Connection) -> Secret[str]:
    assert connection.tokens
    return connection.tokens.token()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _at(vault: TestVault, address: str) -> VaultSettings:
    return replace(vault.settings, address=address)


def test_rights_among_many_take_few_requests(
    vault: TestVault, server: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right is `update` and nothing more; most of a thousand are not the caller's."""
    many = [layout.right("stellantis", "standin", f"acme-{number}", "app") for number in range(1000)]
    hcl = f'path "{many[7]}" {{ capabilities = ["update", "read"] }}\npath "{many[8]}" {{ capabilities = ["update"] }}'
    token, ask = with_policy(vault, "fleet", hcl), Connection.ask
    asked: list[str] = []

    def counted(self: Connection, method: str, path: str, *more: Any, **named: Any) -> Document:
        asked.append(path)
        return ask(self, method, path, *more, **named)

    monkeypatch.setattr(Connection, "ask", counted)
    consumer, found = permitted(server, token, [RIGHT, OTHER, *many], peer=None)
    assert found == {RIGHT, many[8]}
    assert consumer.name.endswith("/fleet")
    assert len(asked) == 5
    monkeypatch.undo()
    for refused in ("s.unknown", ""):
        with pytest.raises(NotAConsumerError):
            permitted(server, Secret(refused), [RIGHT], peer=None)
    wide = with_policy(vault, "wide", 'path "cb-issue/*" { capabilities = ["update"] }')
    with pytest.raises(NotAConsumerError):
        permitted(server, wide, [RIGHT], peer=None)
