"""Setting up and enrolling change nothing for others who use the same Vault."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from broker.copies import replace
from broker.errors import BrokerError, DeniedError, RefusedError, UnknownNameError
from broker.model.role import Role
from broker.rotation.ports import Version
from broker.vault.accounts import VaultAccounts
from broker.vault.connection import Connection, Phase
from broker.vault.consumers import VaultConsumers
from broker.vault.logins import FixedToken
from broker.vault.ownership import found, survey, unseen
from broker.vault.setup import Action, Wish, apply, as_shell, changes, wanted
from tests.support.accounts import an_account
from tests.support.depth import sampled
from tests.support.setup_script import run_script
from tests.support.vault import TestVault, enrol, issue_login, login, plan_of, set_up, token_of

pytestmark = pytest.mark.slow

ADOPT: Final = Wish(adopt=True)
THEIRS: Final = 'path "secret/*" { capabilities = ["read"] }'
RIGHT: Final = "cb-issue/a/b/c/d/direct"


def in_use(bare: Connection) -> None:
    """Make the KV mount of a colleague, with data."""
    kv = {"type": "kv", "description": "team", "options": {"version": "2"}}
    bare.call("POST", f"sys/mounts/{bare.settings.mount}", kv)
    bare.list("")  # a new mount needs a moment
    bare.call("POST", f"{bare.settings.mount}/config", {"max_versions": 3})
    put(bare, "app/db")


def put(bare: Connection, path: str) -> None:
    """Write as `bao kv put` does: without check-and-set."""
    bare.call("POST", f"{bare.settings.mount}/data/{path}", {"data": {"a": "b"}})


def logins_in_use(bare: Connection, role: str, **body: object) -> None:
    """Make the AppRole mount of a colleague, with a role."""
    bare.call("POST", f"sys/auth/{bare.settings.mount}", {"type": "approle"})
    bare.call("POST", f"auth/{bare.settings.mount}/role/{role}", body or {"token_policies": ["ci"]})


def on(bare: Connection, mount: str) -> Connection:
    """Return a connection for another mount."""
    return Connection(replace(bare.settings, mount=mount), FixedToken(token_of(bare)))


def state(bare: Connection) -> Mapping[str, Any]:
    """Return all that setting up could change."""
    mount = bare.settings.mount
    policies = [name for name in bare.ask("LIST", "sys/policies/acl")["data"]["keys"] if name.startswith(f"{mount}/")]
    there = f"auth/{mount}"
    roles = ("server", "ci", "consumer-app")
    return {
        "mounts": found(bare, "sys/mounts"),
        "logins": found(bare, "sys/auth"),
        "config": found(bare, f"{mount}/config"),
        "tune": found(bare, f"sys/{there}/tune") if f"{mount}/" in (found(bare, "sys/auth") or {}) else None,
        "policies": {name: found(bare, f"sys/policies/acl/{name}") for name in policies},
        "roles": {name: found(bare, f"{there}/role/{name}") for name in roles},
        "entity": found(bare, f"identity/entity/name/{mount}/app"),
    }


def policy_of_theirs(bare: Connection) -> None:
    bare.call("POST", f"sys/policies/acl/{bare.settings.mount}/auditor", {"policy": THEIRS})


def kv_v1(bare: Connection) -> None:
    bare.call("POST", f"sys/mounts/{bare.settings.mount}", {"type": "kv", "options": {"version": "1"}})


def transit(bare: Connection) -> None:
    bare.call("POST", f"sys/mounts/{bare.settings.mount}", {"type": "transit"})


def userpass(bare: Connection) -> None:
    bare.call("POST", f"sys/auth/{bare.settings.mount}", {"type": "userpass"})


def role_of_our_name(bare: Connection) -> None:
    logins_in_use(bare, "server", token_policies=["web"])


def forgetful(bare: Connection) -> None:
    in_use(bare)
    bare.call("POST", f"{bare.settings.mount}/config", {"delete_version_after": "720h"})


def others_roles(bare: Connection) -> None:
    logins_in_use(bare, "ci")


# what lies there; what the refusal names; whether it can be shared
OBSTACLES: Final[tuple[tuple[Callable[[Connection], None], str, bool], ...]] = (
    (in_use, "app/", True),
    (others_roles, "ci", True),
    (role_of_our_name, "server", False),
    (policy_of_theirs, "/auditor", False),
    (kv_v1, "kv of version 1", False),
    (transit, "transit", False),
    (userpass, "userpass", False),
    (forgetful, "720h", False),
)
NAMES: Final = [obstacle.__name__ for obstacle, _, _ in OBSTACLES]


@pytest.mark.parametrize(("obstacle", "named", "shareable"), OBSTACLES, ids=NAMES)
def test_mounts_of_others_are_refused(
    bare: Connection, obstacle: Callable[[Connection], None], named: str, shareable: bool
) -> None:
    obstacle(bare)
    before = state(bare)
    for wish in (Wish(),) if shareable else (Wish(), ADOPT):
        with pytest.raises(RefusedError) as caught:
            set_up(bare, wish)
        assert named in caught.value.message
        offered = re.search(r"BROKER_MOUNT=(\S+) broker vault setup --dry-run;", caught.value.hint)
        assert offered
        assert plan_of(on(bare, offered[1]))
        assert ("broker vault setup --adopt-mount --dry-run" in caught.value.hint) == shareable
    assert state(bare) == before


def test_an_adopted_mount_keeps_its_settings(bare: Connection) -> None:
    in_use(bare)
    before = state(bare)
    set_up(bare, ADOPT)
    assert state(bare)["config"] == before["config"]
    assert state(bare)["mounts"] == before["mounts"]
    put(bare, "app/db")
    for wish in (ADOPT, Wish()):  # it was decided
        assert changes(plan_of(bare, wish)) == ()


def as_role(bare: Connection, role: Role) -> Connection:
    return Connection(bare.settings, FixedToken(login(bare, issue_login(bare, role.value))))


def test_shared_mount_bounds_each_document(bare: Connection) -> None:
    in_use(bare)
    set_up(bare, ADOPT)
    operator, server = as_role(bare, Role.OPERATOR), as_role(bare, Role.SERVER)
    account = an_account()
    VaultAccounts(operator).write(account, replacing=Version(0))
    VaultConsumers(server).change("e-1", "app", lambda record: replace(record, name="other"))
    operator.write("profiles/own", {}, replacing=0)
    for path in (f"accounts/{account.name}", "consumers/e-1", "profiles/own"):
        assert (found(bare, f"{bare.settings.mount}/metadata/{path}") or {})["max_versions"] == 10
        with pytest.raises(BrokerError):
            put(bare, path)
    assert changes(plan_of(bare)) == ()


def test_setup_adds_missing_bounds(bare: Connection) -> None:
    in_use(bare)
    set_up(bare, ADOPT)
    bare.create("accounts/mzp-1", {})
    (change,) = changes(plan_of(bare))
    assert change.title == "bounds of accounts/mzp-1"
    apply(bare, [change])
    assert changes(plan_of(bare)) == ()
    with pytest.raises(BrokerError):
        put(bare, "accounts/mzp-1")


@pytest.mark.parametrize(
    "body",
    [
        {"max_versions": "1"},
        {"cas_required": False},
        {"delete_version_after": "1s"},
        {"custom_metadata": {"a": "b"}},
        {"cas_required": True, "max_versions": "10", "delete_version_after": "1s"},
    ],
    ids=str,
)
def test_shared_mount_grants_only_bounds(bare: Connection, body: Mapping[str, object]) -> None:
    in_use(bare)
    set_up(bare, ADOPT)
    for role, path in ((Role.OPERATOR, "accounts/a"), (Role.OPERATOR, "profiles/a"), (Role.SERVER, "consumers/a")):
        with pytest.raises(DeniedError):
            as_role(bare, role).call("POST", f"{bare.settings.mount}/metadata/{path}", body)


def test_own_mount_is_bounded_as_a_whole(vault: TestVault) -> None:
    """There, creating a document costs no other write."""
    written: list[str] = []

    def observer(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE:
            written.append(path)

    operator = vault.connection(Role.OPERATOR, observer=observer)
    VaultAccounts(operator).write(an_account(), replacing=Version(0))
    assert len(written) == 1
    config = found(vault.admin, f"{vault.settings.mount}/config") or {}
    assert (config["cas_required"], config["max_versions"]) == (True, 10)
    with pytest.raises(DeniedError):
        operator.call("POST", f"{vault.settings.mount}/metadata/accounts/a", {"cas_required": True})


def test_mount_is_asked_for_once(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before each new document: a server creates one for each consumer."""
    asked: list[str] = []
    ask = Connection.ask

    def counted(self: Connection, method: str, api_path: str, *rest: Any, **options: Any) -> Mapping[str, Any]:
        asked.append(api_path)
        return ask(self, method, api_path, *rest, **options)

    operator = vault.connection(Role.OPERATOR)
    monkeypatch.setattr(Connection, "ask", counted)
    for name in ("profiles/a", "profiles/b", "profiles/c"):
        operator.write(name, {}, replacing=0)
    assert asked == [f"sys/internal/ui/mounts/{vault.settings.mount}"]


def test_empty_mount_keeps_its_settings(bare: Connection) -> None:
    bare.call("POST", f"sys/mounts/{bare.settings.mount}", {"type": "kv", "options": {"version": "2"}})
    bare.list("")
    before = state(bare)["config"]
    set_up(bare)
    assert changes(plan_of(bare)) == ()
    assert state(bare)["config"] == before


def test_shared_logins_keep_their_lock_out(bare: Connection) -> None:
    others_roles(bare)
    before = state(bare)
    set_up(bare, ADOPT)
    assert state(bare)["tune"] == before["tune"]
    assert state(bare)["roles"]["ci"] == before["roles"]["ci"]
    assert changes(plan_of(bare)) == ()


def test_effects_of_sharing_are_listed(bare: Connection) -> None:
    in_use(bare)
    put(bare, "keys/pgp")
    others_roles(bare)
    said = "\n".join(survey(bare).effects())
    for words in ("cas_required", "under accounts, changes, consumers", "private keys", "under keys", "lock-out"):
        assert words in said


def test_earlier_setup_is_recognised(bare: Connection) -> None:
    """It gave its logins no description."""
    set_up(bare)
    bare.call("POST", f"sys/auth/{bare.settings.mount}/tune", {"description": ""})
    assert changes(plan_of(bare)) == ()
    bare.call("POST", f"sys/policies/acl/{bare.settings.mount}/auditor", {"policy": THEIRS})
    assert [change.action for change in changes(plan_of(bare))] == [Action.UPDATE]


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_mount_within_another_is_refused(bare: Connection, version: str) -> None:
    """Vault would take our settings as a secret of the mount around it."""
    bare.call("POST", f"sys/mounts/{bare.settings.mount}", {"type": "kv", "options": {"version": version}})
    inner = on(bare, f"{bare.settings.mount}/b")
    with pytest.raises(RefusedError, match="is mounted") as caught:
        set_up(inner, ADOPT)
    assert "BROKER_MOUNT=credential-broker" in caught.value.hint
    assert found(bare, f"{inner.settings.mount}/config") is None


def consumer_policy_of_theirs(bare: Connection) -> None:
    bare.call("POST", f"sys/policies/acl/{bare.settings.mount}/consumer-app", {"policy": THEIRS})


def consumer_role_of_theirs(bare: Connection) -> None:
    bare.call("POST", f"auth/{bare.settings.mount}/role/consumer-app", {"token_policies": ["web"]})


def entity_of_theirs(bare: Connection) -> None:
    bare.call("POST", f"identity/entity/name/{bare.settings.mount}/app", {"metadata": {"team": "web"}})


@pytest.mark.parametrize("obstacle", [consumer_policy_of_theirs, consumer_role_of_theirs, entity_of_theirs])
def test_enrolling_overwrites_nothing(bare: Connection, obstacle: Callable[[Connection], None]) -> None:
    set_up(bare)
    obstacle(bare)
    before = state(bare)
    with pytest.raises(RefusedError, match="app exists"):
        enrol(bare, "app", [RIGHT])
    assert state(bare) == before


def test_enrolling_again_changes_rights(bare: Connection) -> None:
    set_up(bare)
    enrol(bare, "app", [RIGHT])
    enrol(bare, "app", [RIGHT.replace("/d/", "/e/")])
    assert "/e/" in state(bare)["policies"][f"{bare.settings.mount}/consumer-app"]["policy"]


@pytest.mark.parametrize("obstacle", [None, others_roles], ids=["nothing", "others"])
def test_enrolling_wants_a_set_up(bare: Connection, obstacle: Callable[[Connection], None] | None) -> None:
    if obstacle:
        obstacle(bare)
    before = state(bare)
    with pytest.raises(UnknownNameError, match="not set up") as caught:
        enrol(bare, "app", [RIGHT])
    assert "broker vault setup" in caught.value.hint
    assert state(bare) == before


def script(bare: Connection, folder: Path, *, shared: bool) -> subprocess.CompletedProcess[str]:
    """Run what `--print sh` prints, with the real command."""
    ground = unseen(bare.settings.mount, shared=shared)
    return run_script(bare, folder, as_shell(ground, wanted(ground, Wish())))


@pytest.mark.parametrize(("obstacle", "named", "shareable"), sampled(OBSTACLES, every=3), ids=NAMES)
def test_the_script_refuses_what_others_made(
    bare: Connection, tmp_path: Path, obstacle: Callable[[Connection], None], named: str, shareable: bool
) -> None:
    obstacle(bare)
    before = state(bare)
    ended = script(bare, tmp_path, shared=False)
    assert ended.returncode == 6, ended.stderr
    assert "nothing was changed" in ended.stderr
    if shareable:
        assert named in ended.stderr
    else:
        assert script(bare, tmp_path, shared=True).returncode == 6
    assert state(bare) == before


def test_script_shares_mounts_if_asked(bare: Connection, tmp_path: Path) -> None:
    in_use(bare)
    others_roles(bare)
    before = state(bare)
    for _ in range(2):
        ended = script(bare, tmp_path, shared=True)
        assert ended.returncode == 0, ended.stderr
    assert {name: state(bare)[name] for name in ("config", "tune")} == {n: before[n] for n in ("config", "tune")}
    assert changes(plan_of(bare)) == ()
