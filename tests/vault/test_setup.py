"""Setting a vault up: planned, done, repeated, and printed for others to run."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.copies import replace
from broker.errors import BrokerError, DeniedError, InputError, RefusedError, UnknownNameError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.approle import provide_login, single_login
from broker.vault.connection import Connection
from broker.vault.enrolment import consumer_role
from broker.vault.errors import MissingError
from broker.vault.logins import FixedToken
from broker.vault.ownership import unseen
from broker.vault.policies import consumer_policy, policy_name
from broker.vault.setup import Action, Item, Wish, apply, as_shell, changes, plan, wanted
from tests.support.setup_script import run_script
from tests.support.vault import AppRole, TestVault, a_consumer, issue_login, login, plan_of, set_up, token_of

pytestmark = pytest.mark.slow


def titles(planned: tuple[Item, ...], action: Action) -> list[str]:
    return [change.title for change in planned if change.action is action]


def test_bare_vault_is_set_up_once(bare: Connection) -> None:
    planned = plan_of(bare)
    assert {change.action for change in planned} == {Action.CREATE}
    assert all(change.difference for change in planned)
    apply(bare, planned)
    assert changes(plan_of(bare)) == ()
    set_up(bare)
    assert login(bare, issue_login(bare, "server")).reveal()


def test_planning_changes_nothing(bare: Connection) -> None:
    plan_of(bare)
    assert f"{bare.settings.mount}/" not in bare.ask("GET", "sys/mounts")["data"]
    assert f"{bare.settings.mount}/" not in bare.ask("GET", "sys/auth")["data"]
    assert policy_name(bare.settings.mount, "server") not in bare.ask("LIST", "sys/policies/acl")["data"]["keys"]


def test_cut_short_it_can_be_run_again(bare: Connection) -> None:
    apply(bare, plan_of(bare)[:4])
    assert len(titles(plan_of(bare), Action.KEEP)) == 4
    set_up(bare)
    assert changes(plan_of(bare)) == ()


def test_concurrent_setups_have_one_outcome(bare: Connection) -> None:
    """OpenBao answers 500 to all but one who make one login at the same moment, having done nothing for them."""
    planned = plan_of(bare)
    apply(bare, planned[: -len(Role)])
    with ThreadPoolExecutor(6) as threads:
        for change in planned[-len(Role) :]:
            writing = [threads.submit(bare.call, "POST", change.path, change.body) for _ in range(6)]
            assert [one.exception() for one in writing] == [None] * 6
    assert changes(plan_of(bare)) == ()


def test_difference_shows_another_account(vault: TestVault) -> None:
    planned = plan_of(vault.admin, Wish(accounts=("mzp-1", "mzp-2")))
    updated = titles(planned, Action.UPDATE)
    assert [title.rsplit("/", 1)[1] for title in updated] == ["server", "rotator", "canary"]
    server = next(change for change in planned if change.title.endswith("/server"))
    mount = vault.settings.mount
    assert f'-path "{mount}/data/keys/+/+"      {{ capabilities = ["read"] }}' in server.difference
    assert f'+path "{mount}/data/keys/mzp-2/+"      {{ capabilities = ["read"] }}' in server.difference


def test_setup_corrects_changes(vault: TestVault) -> None:
    name = policy_name(vault.settings.mount, "auditor")
    vault.admin.call("POST", f"sys/policies/acl/{name}", {"policy": 'path "*" { capabilities = ["read"] }'})
    path = f"auth/{vault.settings.mount}/role/server"
    vault.admin.call("POST", path, {"token_policies": ["root-like"], "token_ttl": 5})
    assert titles(plan_of(vault.admin), Action.UPDATE) == [f"policy {name}", "login server"]
    set_up(vault.admin)
    assert changes(plan_of(vault.admin)) == ()


def test_data_survives_a_second_setup(vault: TestVault) -> None:
    vault.admin.create("accounts/a", {"kept": True})
    set_up(vault.admin, Wish(accounts=("a",)))
    assert vault.admin.read("accounts/a").data == {"kept": True}


def test_a_mount_where_rights_are_is_refused(bare: Connection) -> None:
    bare.call("POST", "sys/mounts/cb-issue/stellantis", {"type": "kv"})
    try:
        with pytest.raises(RefusedError, match="cb-issue"):
            plan_of(bare)
    finally:
        bare.call("DELETE", "sys/mounts/cb-issue/stellantis")


@pytest.mark.parametrize("account", ["*", "a/+", 'a" {', "${mount}", "A", ""])
def test_bad_account_name_is_refused(vault: TestVault, account: str) -> None:
    with pytest.raises(InputError):
        plan_of(vault.admin, Wish(accounts=(account,)))


@pytest.mark.parametrize("rights", [[], ["credential-broker/data/keys/+/+"], ['cb-issue/x" { }'], ["*"]])
def test_consumer_policy_takes_rights_only(rights: list[str]) -> None:
    with pytest.raises(InputError):
        consumer_policy(rights)


def test_a_role_may_not_set_vault_up(vault: TestVault) -> None:
    for role in Role:
        with pytest.raises(DeniedError):
            plan(vault.connection(role), Wish())
        with pytest.raises(DeniedError):
            issue_login(vault.connection(role), "server")


def test_logins_are_issued_for_known_roles(vault: TestVault) -> None:
    first, second = issue_login(vault.admin, "auditor"), issue_login(vault.admin, "auditor")
    assert first.role_id == second.role_id
    assert first.secret_id != second.secret_id
    assert login(vault.admin, first) != login(vault.admin, second)
    with pytest.raises(UnknownNameError, match="nobody"):
        single_login(vault.admin, "nobody")


def secret_ids(vault: Connection, role: str) -> list[str]:
    try:
        found = vault.ask("LIST", f"auth/{vault.settings.mount}/role/{role}/secret-id")
    except MissingError:
        return []
    return list(found["data"]["keys"])


def written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def test_only_a_login_that_fails_is_replaced(vault: TestVault, tmp_path: Path) -> None:
    assert provide_login(vault.admin, "auditor", tmp_path, written)
    first = (tmp_path / "secret_id").read_text()
    assert not provide_login(vault.admin, "auditor", tmp_path, written)
    assert (tmp_path / "secret_id").read_text() == first
    (tmp_path / "role_id").write_text("another")
    assert not provide_login(vault.admin, "auditor", tmp_path, written)
    assert login(vault.admin, in_files(vault, tmp_path)).reveal()
    assert len(secret_ids(vault.admin, "auditor")) == 1
    for content in ("unknown", "", "not äscii"):
        (tmp_path / "secret_id").write_text(content)
        assert provide_login(vault.admin, "auditor", tmp_path, written)
        assert login(vault.admin, in_files(vault, tmp_path)).reveal()


def in_files(vault: TestVault, folder: Path) -> AppRole:
    texts = [(folder / name).read_text() for name in ("role_id", "secret_id")]
    return AppRole(vault.settings.mount, texts[0], Secret(texts[1]))


def test_every_valid_secret_id_is_in_a_file(vault: TestVault, tmp_path: Path) -> None:
    def killed(path: Path, content: bytes) -> None:
        written(path, content)
        if path.name == "secret_id":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provide_login(vault.admin, "auditor", tmp_path, killed)
    assert secret_ids(vault.admin, "auditor") == []
    assert provide_login(vault.admin, "auditor", tmp_path, written)
    assert len(secret_ids(vault.admin, "auditor")) == 1


def test_lost_answer_makes_one_secret_id(vault: TestVault, tmp_path: Path) -> None:
    def sent_before(path: Path, content: bytes) -> None:
        written(path, content)
        if path.name == "secret_id":
            base = f"auth/{vault.settings.mount}/role/auditor/custom-secret-id"
            vault.admin.call("POST", base, {"secret_id": content.decode()})

    assert provide_login(vault.admin, "auditor", tmp_path, sent_before)
    assert len(secret_ids(vault.admin, "auditor")) == 1


def test_single_use_login_leaves_nothing(vault: TestVault) -> None:
    token, seconds = single_login(vault.admin, "auditor")
    assert token.reveal()
    assert seconds == 20 * 60
    assert secret_ids(vault.admin, "auditor") == []


def test_difference_is_shown_as_json(bare: Connection) -> None:
    shown = "\n".join(line for change in plan_of(bare) for line in change.difference)
    assert '+options = {"version": "2"}' in shown
    assert "+token_no_default_policy = true" in shown
    assert "True" not in shown


def test_no_two_mounts_share_a_policy() -> None:
    """Or a later set-up gives the roles of another broker its own secrets."""
    mounts = ("team/broker", "team-broker", "Team-broker", "team.broker", "team", "team-consumer-x")
    names = ("base", "server", consumer_role("x-server"), consumer_role("broker-server"))
    called = [policy_name(mount, name) for mount in mounts for name in names]
    assert len(set(called)) == len(called)
    assert all(name == name.lower() for name in called)  # as Vault writes them


def test_nested_mount_is_set_up(vault: TestVault) -> None:
    nested = Connection(
        replace(vault.settings, mount=f"team/{vault.settings.mount}"), FixedToken(token_of(vault.admin))
    )
    set_up(nested)
    assert not changes(plan_of(nested))
    auditor = Connection(nested.settings, FixedToken(login(nested, issue_login(nested, "auditor"))))
    assert auditor.list("accounts") == ()
    with pytest.raises(DeniedError):
        Connection(vault.settings, FixedToken(login(nested, issue_login(nested, "auditor")))).list("accounts")
    assert a_consumer(nested, "fleet", ["cb-issue/a/b/c/d/direct"]).role_id
    auditor.close()
    nested.close()


def test_a_consumer_cannot_take_a_roles_name(vault: TestVault) -> None:
    a_consumer(vault.admin, "server", ["cb-issue/a/b/c/d/direct"])
    assert consumer_role("server") != "server"
    policies = vault.admin.ask("GET", f"auth/{vault.settings.mount}/role/server")["data"]["token_policies"]
    assert policy_name(vault.settings.mount, "server") in policies


def test_printed_script_sets_a_vault_up(bare: Connection, tmp_path: Path) -> None:
    ground = unseen(bare.settings.mount)
    text = as_shell(ground, wanted(ground, Wish(accounts=("mzp-1",))))

    def run(*arguments: str) -> str:
        done = run_script(bare, tmp_path, text, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run()
    assert secret_ids(bare, "auditor") == []
    *_, fetched = run("logins").splitlines()  # it can be run again
    assert changes(plan_of(bare, Wish(accounts=("mzp-1",)))) == ()
    found = re.fullmatch("anchor role_id=(.+) wrapping=(.+)", fetched)
    assert found
    opened = bare.ask("POST", "sys/wrapping/unwrap", token=Secret(found[2]))["data"]["secret_id"]
    assert login(bare, AppRole(bare.settings.mount, found[1], Secret(opened))).reveal()


def test_wrong_logins_do_not_keep_a_role_out(vault: TestVault) -> None:
    """Vault would lock the role-id for 15 minutes after five, for every process that has the right secret-id."""
    right = issue_login(vault.admin, "server")
    for _ in range(6):
        with pytest.raises(BrokerError):
            login(vault.admin, replace(right, secret_id=Secret("wrong")))
    assert login(vault.admin, right).reveal()
