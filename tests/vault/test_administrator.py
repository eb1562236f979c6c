"""An administrator without root, in a Vault that has other users: `policies/admin.hcl` is enough, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.errors import DeniedError
from broker.model.jwt_issuer import JwtIssuer
from broker.model.role import Role
from broker.vault.approle import provide_login, single_login
from broker.vault.enrolment import Subject, consumer_role, enrol_consumer
from broker.vault.errors import LackingError
from broker.vault.jwt_mounts import JwtMount
from broker.vault.policies import admin_policy
from broker.vault.settings import DEFAULT_MOUNT
from broker.vault.setup import Wish, apply, plan
from tests.support.console import inside
from tests.support.ended import Ended
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.used_by_others import UsedByOthers, used_by_others
from tests.support.vault import set_up, token_of

pytestmark = pytest.mark.slow

# of the policy: the rights of the printed script and of shared mounts, which `setup` and `enrol` do without
UNUSED: Final = (
    '"sys/policies/acl/"',
    f'"auth/{DEFAULT_MOUNT}/role/"',
    f"{DEFAULT_MOUNT}/metadata",
    '/secret-id"',
    "sys/capabilities-self",
    "revoke-self",
)
RIGHT: Final = "cb-issue/a/b/c/d/direct"
ISSUER: Final = JwtIssuer("https://ci.example", AUDIENCE, f"{DEFAULT_MOUNT}-jwt/ci", keys_file="-")
KEYS: Final = {"bound_issuer": ISSUER.issuer, "jwt_validation_pubkeys": [Issuer(ISSUER.issuer).public_pem.strip()]}
WISH: Final = Wish(issuers=(JwtMount("ci", ISSUER.mount, KEYS),))
WHOLE: Final = admin_policy(DEFAULT_MOUNT, jwt_mounts=[ISSUER.mount], issuers=[ISSUER.mount])


@pytest.fixture(scope="module")
def others() -> Iterator[UsedByOthers]:
    with used_by_others() as made:
        set_up(made.root)
        yield made


def run(vault: UsedByOthers, home: Path, line: str, policy: str = "") -> Ended:
    """Run a command as an administrator, or as the holder of a token with `policy` alone."""
    if policy:
        vault.root.call("POST", "sys/policies/acl/less", {"policy": policy})
        token = token_of(vault.root, policies=["less"], no_default_policy=True)
    else:
        token = vault.admin_token()
    environment = vault.environment | {"HOME": str(home), "VAULT_TOKEN": token.reveal()}
    return inside(line.split(), home=home, environment=environment)


def test_nothing_of_others_is_changed(others_vault: UsedByOthers, tmp_path: Path) -> None:
    for line in ("vault setup --dry-run", "vault setup --login-dir roles", "vault setup"):
        assert run(others_vault, tmp_path, line).code == 0
    assert {path.name for path in (tmp_path / "roles").iterdir()} == {role.value for role in Role}
    others_vault.assert_untouched()


def test_printed_policy_is_the_one_that_is_tested(tmp_path: Path, others: UsedByOthers) -> None:
    ended = inside(
        ["vault", "setup", "--print", "admin-policy"],
        home=tmp_path,
        environment=others.environment | {"HOME": str(tmp_path)},
    )
    assert ended.out == admin_policy(DEFAULT_MOUNT)
    assert "shared" not in ended.out
    assert "${" not in ended.out


def test_administrator_reads_no_secret(others: UsedByOthers) -> None:
    others.root.create("keys/mzp-1/1", {"key": "ours"})
    others.root.create("passwords/mzp-1/1", {"password": "ours"})
    person = others.holder(others.admin_token())
    paths = [f"{DEFAULT_MOUNT}/data/{kind}/mzp-1/1" for kind in ("keys", "passwords")]
    paths += ["secret/data/app/db", "kv/platform/data/tls", "legacy/app"]
    for path in paths:
        assert others.root.ask("GET", path)["data"]
        with pytest.raises(DeniedError, match="the broker lacks read"):
            person.ask("GET", path)
        with pytest.raises(DeniedError):
            person.call("POST", path, {"data": {"a": "b"}})
    person.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "sys/policies/acl/ci"),
        ("POST", "sys/policies/acl/default"),
        ("POST", "sys/mounts/new"),
        ("DELETE", "sys/mounts/secret"),
        ("DELETE", f"sys/mounts/{DEFAULT_MOUNT}"),
        ("POST", "sys/auth/new"),
        ("DELETE", f"sys/auth/{DEFAULT_MOUNT}"),
        ("POST", "secret/config"),
        ("POST", "auth/approle/role/ci"),
        ("POST", "auth/approle/role/ci/secret-id"),
        ("POST", f"auth/{DEFAULT_MOUNT}/role/other"),
        ("POST", "identity/entity/name/web"),
        ("POST", "auth/token/create"),
        ("POST", "sys/audit/file"),
        ("LIST", "secret/metadata"),
        ("LIST", f"{DEFAULT_MOUNT}/metadata/keys"),
    ],
)
def test_administrator_changes_nothing_of_others(others: UsedByOthers, method: str, path: str) -> None:
    person = others.holder(others.admin_token())
    with pytest.raises(DeniedError):
        person.ask(method, path, {"policy": "", "type": "kv"})
    person.close()


def written(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def stanzas(policy: str) -> list[str]:
    return [line for line in policy.splitlines() if line.startswith("path")]


def test_dry_run_names_each_missing_right(others_vault: UsedByOthers, tmp_path: Path) -> None:
    """It shows the plan nevertheless, and the real run stops before its first write."""
    kept = [
        line
        for line in stanzas(admin_policy(DEFAULT_MOUNT))
        if f"sys/auth/{DEFAULT_MOUNT}" not in line and "role/server/custom-secret-id" not in line
    ]
    policy = "\n".join([*kept, f'path "sys/auth/{DEFAULT_MOUNT}" {{ capabilities = ["read", "update"] }}'])
    dry = run(others_vault, tmp_path, "vault setup --dry-run", policy)
    assert dry.code == 5
    assert f"sudo on sys/auth/{DEFAULT_MOUNT}" in dry.err
    assert f"update on auth/{DEFAULT_MOUNT}/role/server/custom-secret-id" in dry.err
    assert "broker vault setup --print admin-policy" in dry.err
    assert f"mount {DEFAULT_MOUNT}/" in dry.out
    assert run(others_vault, tmp_path, "vault setup --dry-run -o json", policy).json["code"] == "denied"
    before = others_vault.root.ask("GET", "sys/mounts")["data"]
    real = run(others_vault, tmp_path, "vault setup", policy)
    assert real.code == 5
    assert f"the administrator lacks sudo on sys/auth/{DEFAULT_MOUNT}\n" in real.err
    assert others_vault.root.ask("GET", "sys/mounts")["data"] == before


def test_who_may_look_at_nothing_is_told_all(others: UsedByOthers, tmp_path: Path) -> None:
    policy = "\n".join(line for line in stanzas(admin_policy(DEFAULT_MOUNT)) if '"sys/' not in line or "self" in line)
    ended = run(others, tmp_path, "vault setup --dry-run", policy)
    assert ended.code == 5
    for right in ("read on sys/mounts", "read on sys/auth", f"read, update on sys/policies/acl/{DEFAULT_MOUNT}/anchor"):
        assert right in ended.err


def test_drift_is_seen_with_reading_rights(others: UsedByOthers, tmp_path: Path) -> None:
    """If nothing would change, no right to change anything is missed."""
    lines = [
        line.replace('"create", ', "").replace(', "update", "sudo"', "")
        for line in stanzas(admin_policy(DEFAULT_MOUNT))
    ]
    policy = "\n".join(line.replace(', "update"', "") for line in lines)
    ended = run(others, tmp_path, "vault setup --dry-run", policy)
    assert ended.code == 0, ended.err
    assert "0 of " in ended.err


@pytest.mark.parametrize(
    "line",
    [s for s in stanzas(WHOLE) if not any(u in s for u in UNUSED)],
    ids=lambda line: line.split('"')[1],
)
def test_each_right_is_needed(others: UsedByOthers, tmp_path: Path, line: str) -> None:
    """Without it, setting up or enrolling is denied, and the denial names the path."""
    for path in (f"mounts/{DEFAULT_MOUNT}", f"auth/{DEFAULT_MOUNT}", f"auth/{ISSUER.mount}"):
        others.root.call("DELETE", f"sys/{path}")
    policy = "\n".join(s for s in stanzas(WHOLE) if s != line)
    others.root.call("POST", "sys/policies/acl/less", {"policy": policy})
    person = others.holder(token_of(others.root, policies=["less"], no_default_policy=True))
    with pytest.raises(LackingError) as caught:  # noqa: PT012  # which call it is depends on the right
        apply(person, plan(person, WISH))
        for role in (*Role, *Role):  # a second time, to look whether the first login still works
            provide_login(person, role.value, tmp_path / role.value, written)
        enrol_consumer(person, "one", [RIGHT])
        single_login(person, consumer_role("one"))
        enrol_consumer(person, "one", [RIGHT], Subject(ISSUER, "repo:one"))
    person.close()
    set_up(others.root)
    assert line.split('"')[1].rstrip("*") in caught.value.message
