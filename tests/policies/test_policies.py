"""What each role may and may not do, asked of a real vault."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from broker.errors import BrokerError, ConflictError, DeniedError
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.enrolment import enrol_consumer
from broker.vault.logins.token import FixedToken
from broker.vault.policies import Role, role_policy
from broker.vault.setup import Wish, apply, plan
from tests.support.vault import TestVault, login

# r read, l list the folder, c create, w overwrite, x destroy; what is not said is denied
TABLE: Final[Mapping[str, Mapping[Role, str]]] = {
    "accounts/mzp-1": {
        Role.SERVER: "rl", Role.GATEWAY: "rl", Role.ROTATOR: "rlcw", Role.CANARY: "rlw", Role.OPERATOR: "rlcw",
        Role.AUDITOR: "rl",
    },
    "keys/mzp-1/1": {Role.SERVER: "r", Role.GATEWAY: "r", Role.ROTATOR: "rcx", Role.CANARY: "r"},
    "passwords/mzp-1/1": {
        Role.SERVER: "r", Role.GATEWAY: "r", Role.ROTATOR: "rx", Role.CANARY: "r", Role.OPERATOR: "c",
    },
    "consumers/e-1": {Role.SERVER: "rlcw", Role.ROTATOR: "rl", Role.OPERATOR: "rlcw", Role.AUDITOR: "rl"},
    "revocations/r-1": {Role.SERVER: "rlc", Role.GATEWAY: "rl", Role.OPERATOR: "rlc"},
    "tickets/t-1": {Role.GATEWAY: "c"},
    "locks/scheduler": {Role.ROTATOR: "rcw"},
    "signers/lease": {Role.SERVER: "rlc", Role.GATEWAY: "rl"},
    "signers/ticket": {Role.SERVER: "rlc", Role.GATEWAY: "rl"},
    "signers/anchor": {Role.SERVER: "l", Role.GATEWAY: "l", Role.ANCHOR: "rc"},
    "profiles/acme": {
        Role.SERVER: "rl", Role.GATEWAY: "rl", Role.ROTATOR: "rl", Role.CANARY: "rl", Role.OPERATOR: "rlcw",
    },
    "evidence/accounts/mzp-1/00000001": {
        Role.ROTATOR: "rlc", Role.CANARY: "rc", Role.OPERATOR: "rlc", Role.AUDITOR: "rl", Role.ANCHOR: "rl",
    },
    "evidence/issued/host-1/00000001": {
        Role.SERVER: "rlc", Role.GATEWAY: "rlc", Role.OPERATOR: "rl", Role.AUDITOR: "rl", Role.ANCHOR: "rl",
    },
    "evidence/heads/00000001": {Role.OPERATOR: "rl", Role.AUDITOR: "rl", Role.ANCHOR: "rlc"},
}  # fmt: skip


def allowed(action: Callable[[], object]) -> bool:
    try:
        action()
    except DeniedError:
        return False
    except ConflictError:
        return True
    return True


def found_for(vault: TestVault, role: Role, path: str) -> str:
    """Try everything on `path`, which exists, and on a sibling, which does not."""
    connection = vault.connection(role)
    mount, folder = vault.settings.mount, path.rpartition("/")[0]
    kv = f"{mount}/data/{path}"
    version = len(vault.admin.versions(path))
    tries: dict[str, Callable[[], object]] = {
        "r": lambda: connection.read(path),
        "l": lambda: connection.list(folder),
        "c": lambda: connection.call("POST", f"{kv}-{role.value}", {"data": {}, "options": {"cas": 0}}),
        "w": lambda: connection.call("POST", kv, {"data": {}, "options": {"cas": version}}),
        "x": lambda: connection.call("POST", f"{mount}/destroy/{path}", {"versions": [99]}),
    }
    return "".join(letter for letter, action in tries.items() if allowed(action))


@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_what_the_table_says_and_nothing_else(vault: TestVault, role: Role) -> None:
    for path, roles in TABLE.items():
        vault.admin.create(path, {"there": True})
        assert found_for(vault, role, path) == roles.get(role, ""), f"{role.value} on {path}"


@pytest.mark.parametrize("role", Role)
def test_no_role_takes_versions_or_metadata_away_softly(vault: TestVault, role: Role) -> None:
    connection, mount = vault.connection(role), vault.settings.mount
    for path in TABLE:
        vault.admin.create(path, {"there": True})
        for method, api_path in (
            ("DELETE", f"{mount}/data/{path}"),
            ("DELETE", f"{mount}/metadata/{path}"),
            ("POST", f"{mount}/metadata/{path}"),
            ("POST", f"{mount}/delete/{path}"),
            ("POST", f"{mount}/undelete/{path}"),
        ):
            with pytest.raises(DeniedError):
                connection.call(method, api_path, {"versions": [1]} if "delete/" in api_path else {})
        assert vault.admin.versions(path) == {1: True}


@pytest.mark.parametrize("role", Role)
def test_no_role_reaches_what_gives_rights(vault: TestVault, role: Role) -> None:
    connection, mount = vault.connection(role), vault.settings.mount
    for method, path in (
        ("POST", "sys/policies/acl/mine"),
        ("POST", f"sys/policies/acl/{mount}-server"),
        ("GET", f"sys/policies/acl/{mount}-server"),
        ("POST", f"auth/{mount}/role/server/secret-id"),
        ("POST", f"auth/{mount}/role/{role.value}/secret-id"),
        ("POST", f"auth/{mount}/role/{role.value}"),
        ("GET", f"auth/{mount}/role/server/role-id"),
        ("POST", "identity/entity-alias"),
        ("POST", "identity/entity/id/x"),
        ("POST", "auth/token/create"),
        ("POST", "auth/token/create-orphan"),
        ("POST", f"{mount}/config"),
        ("GET", "sys/mounts"),
        ("GET", "sys/raw/x"),
        ("LIST", "auth/token/accessors"),
        ("LIST", f"{mount}/metadata"),
        ("LIST", f"{mount}/metadata/keys"),
        ("LIST", f"{mount}/metadata/passwords"),
    ):
        with pytest.raises(DeniedError):
            connection.call(method, path, {} if method == "POST" else None)


@pytest.mark.parametrize("role", [Role.SERVER, Role.GATEWAY, Role.ROTATOR, Role.CANARY])
def test_secrets_of_accounts_that_are_not_listed_stay_out_of_reach(vault: TestVault, role: Role) -> None:
    apply(vault.admin, plan(vault.admin, Wish(accounts=("mzp-1", "mzp-2"))))
    connection = vault.connection(role)
    for path in ("keys/{}/1", "passwords/{}/1"):
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
    connection.ask("GET", "auth/token/lookup-self")
    connection.ask("POST", "auth/token/renew-self", {})
    connection.ask("POST", "auth/token/revoke-self", {})
    with pytest.raises(DeniedError):
        connection.ask("GET", "auth/token/lookup-self")


def test_creating_over_what_is_there_is_a_conflict_for_those_who_may_only_create(vault: TestVault) -> None:
    for role, path in (
        (Role.ROTATOR, "keys/mzp-1/1"),
        (Role.OPERATOR, "passwords/mzp-1/1"),
        (Role.CANARY, "evidence/accounts/mzp-1/00000001"),
        (Role.SERVER, "evidence/issued/host-1/00000001"),
        (Role.SERVER, "revocations/r-1"),
        (Role.SERVER, "signers/lease"),
        (Role.GATEWAY, "tickets/t-1"),
        (Role.ANCHOR, "evidence/heads/00000001"),
    ):
        connection = vault.connection(role)
        connection.create(path, {"first": True})
        with pytest.raises(ConflictError):
            connection.create(path, {"first": False})
        assert vault.admin.read(path).data == {"first": True}


def test_a_consumer_never_reads_the_mount(vault: TestVault) -> None:
    right = layout.right("stellantis", "standin", "mzp-1", "app", layout.Access.DIRECT)
    consumer = Connection(vault.settings, FixedToken(login(vault.admin, enrol_consumer(vault.admin, "app", [right]))))
    for path in TABLE:
        vault.admin.create(path, {})
        for action in (lambda: consumer.read(path), lambda: consumer.list(path), lambda: consumer.create(path, {})):  # noqa: B023
            with pytest.raises(DeniedError):
                action()
    with pytest.raises(BrokerError):  # the right is to a path where nothing is
        consumer.call("POST", right, {})
    consumer.close()


def test_every_template_stands_alone() -> None:
    """Each stanza is one line, so that it can be repeated, and says a known capability."""
    for file in (Path(__file__).parents[2] / "policies").glob("*.hcl"):
        for line in file.read_text().splitlines():
            stanza = (
                r'path "[^"]+" +\{ capabilities = \["(create|read|update|list)"(, "(create|read|update|list)")*\] \}'
            )
            assert not line or line.startswith("# ") or re.fullmatch(stanza, line), f"{file.name}: {line}"
    for role in Role:
        assert "${" not in role_policy(role, mount="kv")
