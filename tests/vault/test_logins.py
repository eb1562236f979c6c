"""Logging in, renewing, and logging in again, with tokens that live a second or two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.copies import replace
from broker.errors import DeniedError, InputError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.logins import AppRoleLogin, FileToken, FixedToken, token_source
from tests.support.vault import TestVault, issue_login, token_of

pytestmark = pytest.mark.slow

MakeLogin = Callable[..., AppRoleLogin]


@pytest.fixture
def make_login(vault: TestVault, tmp_path: Path) -> MakeLogin:
    """Return a login as auditor whose tokens live for `ttl` and at most `max_ttl` seconds."""

    def make(ttl: int = 60, max_ttl: int = 600, clock: Callable[[], float] = time.monotonic) -> AppRoleLogin:
        role = f"auth/{vault.settings.mount}/role/{Role.AUDITOR.value}"
        vault.admin.call("POST", role, {"token_ttl": ttl, "token_max_ttl": max_ttl})
        login = issue_login(vault.admin, Role.AUDITOR.value)
        (tmp_path / "role_id").write_text(login.role_id + "\n")
        (tmp_path / "secret_id").write_text(login.secret_id.reveal())
        return AppRoleLogin(
            Connection(vault.settings), tmp_path / "role_id", tmp_path / "secret_id", mount=login.mount, clock=clock
        )

    return make


def alive(vault: TestVault, token: Secret[str]) -> bool:
    try:
        vault.admin.ask("POST", "auth/token/lookup", {"token": token.reveal()})
    except DeniedError:
        return False
    return True


def test_token_is_renewed_at_two_thirds(vault: TestVault, make_login: MakeLogin) -> None:
    now = 0.0
    login = make_login(ttl=60, clock=lambda: now)
    assert login.at_hand() is None
    first = login.token()
    now = 39.0
    assert login.token() == login.at_hand() == first
    before = vault.admin.ask("POST", "auth/token/lookup", {"token": first.reveal()})["data"]["expire_time"]
    time.sleep(1.1)
    now = 41.0
    assert login.at_hand() is None, "a renewal is due"
    assert login.token() == login.at_hand() == first
    assert vault.admin.ask("POST", "auth/token/lookup", {"token": first.reveal()})["data"]["expire_time"] > before
    login.close()


def test_the_end_of_a_token_is_known(vault: TestVault, make_login: MakeLogin) -> None:
    """For monitoring; tests/deploy has an alert on it."""
    now = 0.0
    login = make_login(ttl=600, clock=lambda: now)
    assert login.ends() is None
    login.token()
    now = 100.0
    left = (login.ends() or 0) - time.time()
    assert 490 < left < 510
    login.close()
    assert login.ends() is None


def test_work_continues_over_many_tokens(vault: TestVault, make_login: MakeLogin) -> None:
    connection = Connection(vault.settings, make_login(ttl=1, max_ttl=2))
    ends = time.monotonic() + 3.5
    while time.monotonic() < ends:
        assert connection.list("accounts") == ()
        time.sleep(0.05)
    connection.close()


def test_revoked_token_is_replaced(vault: TestVault, make_login: MakeLogin) -> None:
    login = make_login()
    connection = Connection(vault.settings, login)
    connection.list("accounts")
    first = login.token()
    vault.admin.call("POST", "auth/token/revoke", {"token": first.reveal()})
    assert connection.list("accounts") == ()
    assert login.token() != first
    connection.close()


def test_denied_right_causes_no_new_login(vault: TestVault, make_login: MakeLogin) -> None:
    login = make_login()
    connection = Connection(vault.settings, login)
    first = login.token()
    with pytest.raises(DeniedError):
        connection.read("keys/a/1")
    assert login.token() == first
    connection.close()


def test_many_threads_log_in_once(vault: TestVault, make_login: MakeLogin) -> None:
    login = make_login()
    tokens: list[Secret[str]] = []
    threads = [threading.Thread(target=lambda: tokens.append(login.token())) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 12
    assert all(token == tokens[0] for token in tokens)
    login.replace(tokens[0])
    assert login.token() != tokens[0]
    second = login.token()
    login.replace(tokens[0])  # a thread that comes late with the same dead token
    assert login.token() == second
    login.close()


def test_closing_leaves_no_token(vault: TestVault, make_login: MakeLogin) -> None:
    login = make_login()
    connection = Connection(vault.settings, login)
    token = login.token()
    assert alive(vault, token)
    connection.close()
    assert not alive(vault, token)
    login.close()


def test_close_while_vault_is_away(vault: TestVault, make_login: MakeLogin) -> None:
    login = make_login()
    login.token()
    login.vault = Connection(replace(vault.settings, address="http://127.0.0.1:1", patience=600))
    login.close()  # within the test's time: it is not tried again


@pytest.mark.parametrize("which", ["role_id", "secret_id"])
@pytest.mark.parametrize("content", ["wrong", "", None])
def test_bad_login_file_is_named_not_quoted(
    make_login: MakeLogin, tmp_path: Path, which: str, content: str | None
) -> None:
    login = make_login()
    secret = (tmp_path / "secret_id").read_text()
    if content is None:
        (tmp_path / which).unlink()
    else:
        (tmp_path / which).write_text(content)
    with pytest.raises(DeniedError) as caught:
        login.token()
    said = f"{caught.value!r} {caught.value.hint}"
    assert which in said
    assert secret not in said


@pytest.mark.parametrize(
    ("wrong", "first_cause"),
    [({"mount": "nowhere"}, "mount"), ({"namespace": "nowhere"}, "namespace"), ({"secret": "dead"}, "expired")],
)
def test_refused_login_names_place_and_cause(
    vault: TestVault, make_login: MakeLogin, tmp_path: Path, wrong: dict[str, str], first_cause: str
) -> None:
    mount = wrong.get("mount") or make_login().mount
    if "secret" in wrong:
        (tmp_path / "secret_id").write_text(wrong["secret"])
    settings = replace(vault.settings, namespace=wrong.get("namespace", ""), source="$BAO_ADDR")
    for name in ("role_id", "secret_id"):
        (tmp_path / name).touch()
        (tmp_path / name).write_text((tmp_path / name).read_text() or "made up")
    login = AppRoleLogin(Connection(settings), tmp_path / "role_id", tmp_path / "secret_id", mount=mount)
    with pytest.raises(DeniedError) as caught:
        login.token()
    assert f"Vault at {vault.settings.address} ($BAO_ADDR)" in caught.value.message
    assert f"auth/{mount}" in caught.value.message
    assert wrong.get("namespace", "") in caught.value.message
    assert first_cause in caught.value.hint.partition("?")[0]


def test_new_secret_id_needs_no_restart(vault: TestVault, make_login: MakeLogin, tmp_path: Path) -> None:
    login = make_login()
    token = login.token()
    (tmp_path / "secret_id").write_text(issue_login(vault.admin, Role.AUDITOR.value).secret_id.reveal())
    vault.admin.call("POST", "auth/token/revoke", {"token": token.reveal()})
    assert login.replace(token)
    assert alive(vault, login.token())
    login.close()


def test_dead_file_token_is_read_again(vault: TestVault, tmp_path: Path) -> None:
    file = tmp_path / "token"
    first = token_of(vault.admin)
    file.write_text(first.reveal() + "\n")
    connection = Connection(vault.settings, FileToken(file))
    assert connection.list("accounts") == ()
    vault.admin.call("POST", "auth/token/revoke", {"token": first.reveal()})
    with pytest.raises(DeniedError):
        connection.list("accounts")
    file.write_text(token_of(vault.admin).reveal())
    assert connection.list("accounts") == ()
    connection.close()


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", b"s.a\nb"])
def test_file_without_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InputError):
        FileToken(tmp_path / "token").token()


def test_missing_token_file_hints_at_login(tmp_path: Path) -> None:
    with pytest.raises(DeniedError) as caught:
        FileToken(tmp_path / "token").token()
    assert "login" in caught.value.hint


def test_methods_go_by_name(vault: TestVault, tmp_path: Path) -> None:
    nobody = Connection(vault.settings)
    approle = token_source("approle", nobody, {"role_id_file": "/r", "secret_id_file": "/s"})
    assert isinstance(approle, AppRoleLogin)
    assert isinstance(token_source("token", nobody, {"file": str(tmp_path)}), FileToken)
    given = Connection(replace(vault.settings, token=Secret("s.x")))
    assert isinstance(token_source("token", given, {}), FixedToken)
    for method in ("approle", "token", "kerberos"):
        with pytest.raises(InputError):
            token_source(method, nobody, {})
