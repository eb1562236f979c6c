"""Rendered policies, and the broker's own adapters under them; the rights are in matrix.toml."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from broker.errors import BrokerError, ConflictError, DeniedError, InputError
from broker.model.role import Role
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.logins import FixedToken
from broker.vault.policies import consumer_policy, role_policy
from broker.vault.setup import Wish, apply, plan
from tests.support.matrix import Matrix
from tests.support.vault import TestVault, a_consumer, login

pytestmark = pytest.mark.slow

POLICIES: Final = Path(__file__).parents[2] / "policies"


@pytest.mark.parametrize(
    ("role", "paths"),
    [
        (Role.SERVER, ("keys/{}/1", "passwords/{}/1", "secrets/{}/hmac/1", "evidence/accounts/{}/00000001")),
        (Role.CANARY, ("keys/{}/1", "passwords/{}/1", "secrets/{}/hmac/1", "evidence/accounts/{}/00000001")),
        (Role.ROTATOR, ("keys/{}/1",)),
    ],
)
def test_unlisted_accounts_stay_out_of_reach(vault: TestVault, role: Role, paths: Sequence[str]) -> None:
    apply(vault.admin, plan(vault.admin, Wish(accounts=("mzp-1", "mzp-2"))))
    connection = vault.connection(role)
    for path in paths:
        for account in ("mzp-1", "mzp-2", "mzp-3", "mzp-11"):
            vault.admin.create(path.format(account), {})
        connection.read(path.format("mzp-1"))
        connection.read(path.format("mzp-2"))
        for account in ("mzp-3", "mzp-11"):
            with pytest.raises(DeniedError):
                connection.read(path.format(account))


@pytest.mark.parametrize("role", Role)
def test_a_role_looks_after_its_own_token(vault: TestVault, role: Role) -> None:
    connection = vault.connection(role)
    connection.ask("POST", "sys/capabilities-self", {"paths": ["x"]})
    connection.ask("POST", "auth/token/renew-self", {})
    connection.ask("POST", "auth/token/revoke-self", {})
    with pytest.raises(DeniedError):
        connection.ask("POST", "sys/capabilities-self", {"paths": ["x"]})


def test_create_over_existing_is_a_conflict(vault: TestVault) -> None:
    for role, path in (
        (Role.ROTATOR, "keys/mzp-1/1"),
        (Role.OPERATOR, "passwords/mzp-1/1"),
        (Role.OPERATOR, "secrets/mzp-1/hmac/1"),
        (Role.OPERATOR, "evidence/accounts/mzp-1/00000001"),
        (Role.SERVER, "evidence/issued/host-1/00000001"),
        (Role.SERVER, "signers/lease"),
        (Role.ANCHOR, "evidence/heads/00000001"),
    ):
        connection = vault.connection(role)
        connection.create(path, {"first": True})
        with pytest.raises(ConflictError):
            connection.create(path, {"first": False})
        assert vault.admin.read(path).data == {"first": True}


def test_a_consumer_never_reads_the_mount(vault: TestVault) -> None:
    right = layout.right("stellantis", "standin", "mzp-1", "app")
    consumer = Connection(vault.settings, FixedToken(login(vault.admin, a_consumer(vault.admin, "app", [right]))))
    for path in (row.example for row in Matrix.load().rows if row.mounted and not row.path.endswith("/")):
        vault.admin.create(path, {})
        for action in (lambda: consumer.read(path), lambda: consumer.list(path), lambda: consumer.create(path, {})):  # noqa: B023
            with pytest.raises(DeniedError):
                action()
    with pytest.raises(BrokerError):  # the right is to a path without a document
        consumer.call("POST", right, {})
    consumer.close()


def test_every_template_stands_alone() -> None:
    """Each stanza is one line, so that it can be repeated, and says a known capability."""
    for file in POLICIES.glob("*.hcl"):
        for line in file.read_text().splitlines():
            stanza = (
                r'path "[^"]+" +\{ capabilities = \["(create|read|update|list)"'
                r'(, "(create|read|update|list|sudo|delete)")*\]'
                r"(, allowed_parameters = \{ [^{}]+ \})? \}"
            )
            assert not line or line.startswith("# ") or re.fullmatch(stanza, line), f"{file.name}: {line}"
    for role in Role:
        assert "${" not in role_policy(role, mount="kv")


def test_each_role_has_a_template() -> None:
    found = {file.stem for file in POLICIES.glob("*.hcl")}
    assert found == {role.value for role in Role} | {"admin", "base", "consumer"}


@pytest.mark.parametrize(
    "name", ["", "*", "mzp-*", "mzp-1*", "+/+", "mzp-1/+", "../mzp-1", "MZP", 'x" {}', "a\nb", "a/b"]
)
def test_bad_account_is_not_a_name(name: str) -> None:
    with pytest.raises(InputError):
        role_policy(Role.SERVER, mount="kv", accounts=[name])


@pytest.mark.parametrize(
    "right",
    [
        "",
        "*",
        "secret/x",
        "cb-issue",
        "cb-issue/*",
        "cb-issue/+/+/+/+/+",
        "cb-issue/a/b/c/d/root",
        "cb-issue/a/b/../d/direct",
        'cb-issue/x" { capabilities = ["sudo"] } path "y',
    ],
)
def test_consumer_gets_only_rights(right: str) -> None:
    with pytest.raises(InputError):
        consumer_policy([right])


def test_every_granted_folder_is_known() -> None:
    """Sharing a mount lists them to the administrator."""
    texts = "".join(file.read_text() for file in POLICIES.glob("*.hcl"))
    assert set(re.findall(r"\$\{mount\}/(?:data|metadata|destroy)/(\w+)", texts)) == set(layout.FOLDERS)
