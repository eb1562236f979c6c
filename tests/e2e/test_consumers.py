"""Recognise consumers: `broker bundle get` with every kind of token that may try.

The vault is one as others have it: over TCP, with a root token and namespaces. What each clause says of whom is in
tests/vault/test_capabilities.py; here it is what the command does, writes and leaves.
"""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pytest
from partner_standin import Standin

from broker.copies import replace
from broker.embedded.up import Embedded
from broker.errors import DeniedError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.errors import MissingError
from broker.vault.layout import DESCRIPTION, right
from broker.vault.logins import FixedToken
from broker.vault.setup import Wish, apply, plan
from tests.support.system import LOGIN, PASSWORD, Ended, System, made_system
from tests.support.vault import TestVault, a_consumer, login, token_of, with_root_token

pytestmark = pytest.mark.slow

RIGHT: Final = right("stellantis", "stand-in", "acme", "reporting")
EXACTLY: Final = f'path "{RIGHT}" {{ capabilities = ["update"] }}'
CYRILLIC: Final = "\u0430cme"  # these look like acme, and are not
WIDE: Final = "\uff41\uff43\uff4d\uff45"
_numbers: Final = itertools.count(1)


@dataclass
class Door:
    """A promoted account, and the consumers that ask for its bundles."""

    system: System
    admin: Connection
    root: Secret[str]

    def policy(self, hcl: str) -> str:
        """Store a policy; return its name."""
        name = f"p-{next(_numbers)}"
        self.admin.call("POST", f"sys/policies/acl/{name}", {"policy": hcl})
        return name

    def holder(self, *policies: str, entity: dict[str, object] | None = None, **role: object) -> Secret[str]:
        """Log in as a new user with only `policies`, in a role with further settings."""
        name = f"somebody-{next(_numbers)}"
        body = {"token_policies": policies, "token_no_default_policy": True, "token_ttl": 600, **role}
        self.admin.call("POST", f"auth/approle/role/{name}", body)
        role_id = self.admin.ask("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret_id = self.admin.call("POST", f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]
        if entity is not None:
            self.admin.call("POST", f"identity/entity/name/{name}", entity)
            made = self.admin.ask("GET", f"identity/entity/name/{name}")["data"]["id"]
            accessor = self.admin.ask("GET", "sys/auth")["data"]["approle/"]["accessor"]
            alias = {"name": role_id, "canonical_id": made, "mount_accessor": accessor}
            self.admin.call("POST", "identity/entity-alias", alias)
        answer = self.admin.ask("POST", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id})
        return Secret(answer["auth"]["client_token"])

    def about(self, token: Secret[str]) -> Any:
        """Return what Vault knows of `token`."""
        return self.admin.ask("POST", "auth/token/lookup", {"token": token.reveal()})["data"]

    def wait_until_unknown(self, token: Secret[str]) -> None:
        """Wait until Vault has forgotten `token`."""
        until = time.monotonic() + 30
        with suppress(MissingError, DeniedError):
            while time.monotonic() < until:
                self.about(token)
                time.sleep(0.05)

    def knock(self, token: Secret[str], application: str = "acme/reporting") -> tuple[Ended, Path]:
        """Ask for a bundle; return how that ended and where it would lie."""
        number = next(_numbers)
        file, target = self.system.home / f"token-{number}", self.system.home / f"bundle-{number}"
        file.write_text(token.reveal())
        options = ("--consumer-token-file", str(file), "--to", str(target))
        return self.system.run("bundle", "get", application, *options), target

    def written(self) -> tuple[object, ...]:
        """Return what issuing would have changed in Vault."""
        vault = self.system.vault.admin
        return (*vault.list("evidence/issued"), *vault.list("consumers"))

    def assert_shut(self, token: Secret[str], application: str = "acme/reporting", *, words: str = "") -> None:
        before = self.written()
        ended, target = self.knock(token, application)
        assert ended.code == 5, f"{ended.code}\n{ended.out}{ended.err}"
        assert not ended.out
        assert words in ended.err
        assert "Traceback" not in ended.err
        assert "hint:" in ended.err
        assert not token.reveal() or token.reveal() not in ended.err
        assert not target.exists()
        assert self.written() == before

    def assert_open(self, token: Secret[str]) -> None:
        before = self.written()
        ended, target = self.knock(token)
        assert ended.code == 0, f"{ended.code}\n{ended.out}{ended.err}"
        assert (target / "current" / "tls.key").is_file()
        assert self.written() != before


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    partner = Standin(tmp_path_factory.mktemp("partner"), accounts={LOGIN: PASSWORD})
    with with_root_token() as settings, partner:
        assert settings.token
        root = Connection(settings, FixedToken(settings.token))
        apply(root, plan(root, Wish()))
        root.call("POST", "sys/auth/approle", {"type": "approle"})
        vault = TestVault(replace(settings, token=None), root, cast("Embedded", None))
        with made_system(vault, partner) as system:
            system.promoted()
            for name in ("beta", "acme2"):
                system.added(name)
            system.ok("app", "add", "acme/other", "--client-id", "22222222-2222-4222-8222-222222222222")
            yield Door(system, root, settings.token)
        vault.close()
        root.close()


def test_exactly_the_right_opens(door: Door) -> None:
    door.assert_open(door.holder(door.policy(EXACTLY)))


def test_identity_templated_policy_grants(door: Door) -> None:
    path = RIGHT.replace("/reporting/", "/{{identity.entity.metadata.application}}/")
    policy = door.policy(f'path "{path}" {{ capabilities = ["update"] }}')
    door.assert_open(door.holder(policy, entity={"metadata": {"application": "reporting"}}))
    door.assert_shut(door.holder(policy, entity={"metadata": {"application": "other"}}), words="lacks update")
    door.assert_shut(door.holder(policy, entity={"metadata": {}}), words="lacks update")
    for wildcard in ("+", "*", "report*"):  # Vault itself refuses the policy then
        door.assert_shut(door.holder(policy, entity={"metadata": {"application": wildcard}}), words="cannot evaluate")


def test_a_policy_of_the_entity_opens(door: Door) -> None:
    door.assert_open(door.holder(entity={"policies": [door.policy(EXACTLY)]}))


def test_group_policy_ends_with_membership(door: Door) -> None:
    token = door.holder(entity={})
    door.assert_shut(token, words="lacks update")
    member = door.about(token)["entity_id"]
    group = {"policies": [door.policy(EXACTLY)], "member_entity_ids": [member]}
    door.admin.call("POST", "identity/group/name/fleet", group)
    door.assert_open(token)
    door.admin.call("POST", "identity/group/name/fleet", {**group, "member_entity_ids": []})
    door.assert_shut(token, words="lacks update")


@pytest.mark.parametrize(
    "hcl",
    [
        EXACTLY + ' path "cb-issue/*" { capabilities = ["deny"] }',  # the narrower wins, in Vault
        EXACTLY + ' path "secret/*" { capabilities = ["read", "list"] }',  # other rights are none of our business
        'path "cb-issue/stellantis/stand-in/acme/+/direct" { capabilities = ["update"] }',  # for all of acme
    ],
)
def test_what_else_opens(door: Door, hcl: str) -> None:
    door.assert_open(door.holder(door.policy(hcl)))


@pytest.mark.parametrize(
    ("hcl", "words"),
    [
        ('path "*" { capabilities = ["update"] }', "matches every right"),
        ('path "*" { capabilities = ["read"] }', "matches every right"),
        ('path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }', "sudo"),
        ('path "cb-issue/*" { capabilities = ["update"] }', "matches every right"),
        ('path "cb-i*" { capabilities = ["update"] }', "matches every right"),
        ('path "+/+/+/+/+/+" { capabilities = ["update"] }', "matches every right"),
        ('path "cb-issue/+/+/+/+/direct" { capabilities = ["update"] }', "matches every right"),
        ('path "+/*" { capabilities = ["update"] }', "matches every right"),
        (f'{EXACTLY} path "*" {{ capabilities = ["list"] }}', "matches every right"),
        (f'path "{RIGHT}" {{ capabilities = ["update", "sudo"] }}', "sudo"),
        (f'path "{RIGHT}" {{ capabilities = ["update", "read"] }}', "exactly update"),
        (f'path "{RIGHT}" {{ capabilities = ["update", "create", "patch"] }}', "exactly update"),
        (f'path "{RIGHT}" {{ capabilities = ["read"] }}', "exactly update"),
        (f'path "{RIGHT}" {{ capabilities = ["deny"] }}', "lacks update"),
        (f'path "{RIGHT}" {{ capabilities = ["update", "deny"] }}', "lacks update"),
        (f'{EXACTLY} path "{RIGHT}" {{ capabilities = ["deny"] }}', "lacks update"),
        (f'path "{RIGHT}/" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "/{RIGHT}" {{ capabilities = ["read"] }}', ""),
        (f'path "{RIGHT[:-1]}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.upper()}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("acme", "acm+")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("acme", "beta/../acme")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("acme", "acme%2f..%2facme")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("acme", CYRILLIC)}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("stand-in", "production")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("stellantis", "visa")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("/acme/", "/beta/")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("/acme/", "/acme2/")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("reporting", "other")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("direct", "gateway")}" {{ capabilities = ["update"] }}', "lacks update"),
        (f'path "{RIGHT.replace("direct", "ticket")}" {{ capabilities = ["update"] }}', "lacks update"),
        ('path "credential-broker/*" { capabilities = ["read", "update"] }', "lacks update"),
    ],
)
def test_policy_with_other_capabilities(door: Door, hcl: str, words: str) -> None:
    door.assert_shut(door.holder(door.policy(hcl)), words=words)


def test_two_policies_that_grant_too_much(door: Door) -> None:
    read = door.policy(f'path "{RIGHT}" {{ capabilities = ["read"] }}')
    deny = door.policy(f'path "{RIGHT}" {{ capabilities = ["deny"] }}')
    door.assert_shut(door.holder(door.policy(EXACTLY), read), words="exactly update")
    door.assert_shut(door.holder(door.policy(EXACTLY), deny), words="lacks update")
    door.assert_shut(door.holder(door.policy(EXACTLY), entity={"policies": [read]}), words="exactly update")


def test_the_root_token(door: Door) -> None:
    door.assert_shut(door.root, words="root token")
    door.assert_shut(token_of(door.admin), words="root token")  # a child of it


@pytest.mark.parametrize("role", Role)
def test_the_brokers_own_roles(door: Door, role: Role) -> None:
    with door.system.broker() as broker:
        tokens = broker.roles.connection(role).tokens
        assert tokens
        door.assert_shut(tokens.token(), words="lacks update")


def test_a_token_that_somebody_created(door: Door) -> None:
    policy = door.policy(EXACTLY)
    door.assert_shut(token_of(door.admin, policies=[policy]), words="no entity")
    door.assert_shut(token_of(door.admin, policies=[policy], no_parent=True), words="no entity")
    door.assert_shut(token_of(door.admin, policies=[policy], num_uses=3), words="number of uses")


@pytest.mark.parametrize("uses", [1, 5])
def test_use_limited_token_is_refused_unused(door: Door, uses: int) -> None:
    token = door.holder(door.policy(EXACTLY), token_num_uses=uses)
    door.assert_shut(token, words="number of uses")
    door.assert_shut(token, words="number of uses")
    assert door.about(token)["num_uses"] == uses


def test_batch_token_is_refused(door: Door) -> None:
    policy = door.policy(EXACTLY)
    door.assert_shut(door.holder(policy, token_type="batch"), words="batch")
    door.assert_shut(token_of(door.admin, policies=[policy], type="batch"))


def test_a_token_bound_to_addresses(door: Door) -> None:
    """The command reaches Vault as the broker, so the consumer's address is unknown."""
    policy = door.policy(EXACTLY)
    for cidr in ("127.0.0.1/32", "0.0.0.0/0"):
        door.assert_shut(door.holder(policy, token_bound_cidrs=[cidr]), words="bound to addresses")


def test_disabled_entity_is_refused(door: Door) -> None:
    token = door.holder(door.policy(EXACTLY), entity={})
    entity = f"identity/entity/id/{door.about(token)['entity_id']}"
    door.assert_open(token)
    door.admin.call("POST", entity, {"disabled": True})
    door.assert_shut(token, words="disabled")
    door.admin.call("POST", entity, {"disabled": False})
    door.assert_open(token)
    door.admin.call("DELETE", entity)
    door.assert_shut(token)


def test_a_token_that_is_over(door: Door) -> None:
    policy = door.policy(EXACTLY)
    revoked, expired = door.holder(policy), door.holder(policy, token_ttl=1, token_max_ttl=1)
    door.admin.call("POST", "auth/token/revoke", {"token": revoked.reveal()})
    door.assert_shut(revoked, words="does not know")
    door.wait_until_unknown(expired)
    door.assert_shut(expired, words="does not know")


def test_a_token_whose_policy_was_taken_away(door: Door) -> None:
    policy = door.policy(EXACTLY)
    token = door.holder(policy)
    door.assert_open(token)
    door.admin.call("DELETE", f"sys/policies/acl/{policy}")
    door.assert_shut(token, words="lacks update")


def test_a_token_of_another_namespace(door: Door) -> None:
    door.admin.call("POST", "sys/namespaces/tenant", {})
    inside = Connection(replace(door.admin.settings, namespace="tenant"), FixedToken(door.root))
    try:
        inside.call("POST", "sys/policies/acl/p", {"policy": EXACTLY})
        inside.call("POST", "sys/auth/credential-broker", {"type": "approle", "description": DESCRIPTION})
        door.assert_shut(login(inside, a_consumer(inside, "fleet", [RIGHT])))
        door.assert_shut(token_of(inside, policies=["p"]))
    finally:
        inside.close()


@pytest.mark.parametrize("text", ["s.unknown", "hvs.CAESIJ", "eyJhbGciOiJub25lIn0.e30.", "root", "x" * 5000, "s.a.b.c"])
def test_what_only_looks_like_a_token(door: Door, text: str) -> None:
    door.assert_shut(Secret(text))


def test_what_belongs_to_a_token_but_is_none(door: Door) -> None:
    token = door.holder(door.policy(EXACTLY))
    door.assert_shut(Secret(door.about(token)["accessor"]))
    request = urllib.request.Request(f"{door.admin.settings.address}/v1/auth/token/lookup-self")
    request.add_header("X-Vault-Token", door.root.reveal())
    request.add_header("X-Vault-Wrap-TTL", "60s")
    with urllib.request.urlopen(request) as answer:
        wrapped = json.load(answer)
    door.assert_shut(Secret(wrapped["wrap_info"]["token"]))


NO_NAMES: Final = (
    "--", "acme", "acme/", "/reporting", "acme/../beta/reporting", "acme/reporting/..", "../acme/reporting",
    "ACME/reporting", "acme/Reporting", "acme%2freporting", "acme%2f/reporting", "acme/%72eporting",
    f"{CYRILLIC}/reporting", f"{WIDE}/reporting", "acme/reporting\u200b", "acme/reporting ", " acme/reporting",
    "acme//reporting", "acme/reporting/direct", "acme/+", "+/+", "*/reporting", "acme/*", "acme/reporting\n",
    "acme\\reporting", "acme/reporting?x", f"{'a' * 64}/reporting", f"acme/{'a' * 5000}", "acme.beta/reporting",
    "-acme/reporting", "acme/reporting;beta", "",
)  # fmt: skip


def test_invalid_name_is_an_input_error(door: Door) -> None:
    token, before = door.holder(door.policy(EXACTLY)), door.written()
    for application in NO_NAMES:
        ended, target = door.knock(token, application)
        assert ended.code == 2, f"{application!r}: {ended.code}\n{ended.err}"
        assert not ended.out
        assert not target.exists()
    assert door.written() == before


@pytest.mark.parametrize("application", ["acme/unknown", "unknown/reporting"])
def test_what_is_not_there_is_not_given(door: Door, application: str) -> None:
    account, name = application.split("/")
    path = right("stellantis", "stand-in", account, name)
    token, before = door.holder(door.policy(f'path "{path}" {{ capabilities = ["update"] }}')), door.written()
    ended, target = door.knock(token, application)
    assert ended.code == 2
    assert not target.exists()
    assert door.written() == before


def test_consumer_learns_nothing_of_others(door: Door) -> None:
    """An application that is there and one that is not are denied in the same words."""
    token = door.holder(door.policy(EXACTLY))
    there, absent = door.knock(token, "acme/other")[0], door.knock(token, "acme/unknown")[0]
    assert (there.code, absent.code) == (5, 5)
    assert there.err.replace("other", "…") == absent.err.replace("unknown", "…")
