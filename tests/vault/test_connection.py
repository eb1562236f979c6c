"""KV v2 through the connection, on a real vault."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from broker.copies import replace
from broker.errors import ConflictError, DeniedError, InputError, RefusedError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.connection import Connection, Phase, Stored
from broker.vault.errors import BadTokenError, GoneError, InvalidError, MissingError, UnmountedError
from broker.vault.logins import FixedToken
from tests.support.vault import TestVault, token_of


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def test_created_document_is_read_back(vault: TestVault) -> None:
    vault.admin.create("accounts/a", {"name": "Société", "list": [1, {"x": None}]})
    assert vault.admin.read("accounts/a") == Stored({"name": "Société", "list": [1, {"x": None}]}, 1)
    vault.admin.write("accounts/a", {"now": 2}, replacing=1)
    assert vault.admin.read("accounts/a") == Stored({"now": 2}, 2)


def test_reading_nothing_is_missing(vault: TestVault) -> None:
    with pytest.raises(MissingError):
        vault.admin.read("accounts/none")
    assert vault.admin.read_or_none("accounts/none") is None
    assert vault.admin.list("accounts") == ()


def counted(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {"count": document["count"] + 1 if document else 1}


def test_change_runs_again_after_a_conflict(vault: TestVault) -> None:
    def change(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
        runs.append(document)
        if len(runs) < 4:
            vault.admin.write("consumers/a", {"count": 10 * len(runs)}, replacing=len(runs) - 1)
        return counted(document)

    runs: list[Mapping[str, Any] | None] = []
    assert vault.admin.change("consumers/a", change) == {"count": 31}
    assert runs == [None, {"count": 10}, {"count": 20}, {"count": 30}]
    assert vault.admin.read("consumers/a") == Stored({"count": 31}, 4)


def test_lost_answer_is_not_written_twice(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write took effect, others wrote since, and its answer came back as a conflict with itself."""
    write = Connection.write

    def lost(self: Connection, path: str, data: Mapping[str, Any], *, replacing: int) -> None:
        write(self, path, data, replacing=replacing)
        write(self, path, {"count": 100}, replacing=replacing + 1)
        raise ConflictError("did not match")

    monkeypatch.setattr(Connection, "write", lost)
    assert vault.admin.change("consumers/a", counted) == {"count": 100}


def test_change_gives_up_in_the_end(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Connection, path: str, data: Mapping[str, Any], *, replacing: int) -> None:
        raise ConflictError("did not match")

    monkeypatch.setattr(Connection, "write", refused)
    with pytest.raises(ConflictError, match="consumers/a kept changing"):
        vault.admin.change("consumers/a", counted)


def test_change_without_effect(vault: TestVault) -> None:
    vault.admin.create("consumers/a", {"count": 1})
    assert vault.admin.change("consumers/a", lambda found: found or {}) == {"count": 1}
    assert vault.admin.read("consumers/a").version == 1


def test_adopt_takes_what_the_first_stored(vault: TestVault) -> None:
    def make() -> Mapping[str, Any]:
        vault.admin.create("keys/a/1", {"by": "another"})
        return {"by": "us"}

    assert vault.admin.adopt("keys/a/1", make) == {"by": "another"}
    assert vault.admin.adopt("keys/a/2", lambda: {"by": "us"}) == {"by": "us"}
    assert vault.admin.adopt("keys/a/2", lambda: {"by": "nobody"}) == {"by": "us"}


def test_adopt_waits_for_no_destroyed_document(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Mapping[str, Any]:
        vault.admin.create("keys/a/1", {"by": "another"})
        vault.admin.destroy_all("keys/a/1")
        monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
        return {"by": "us"}

    with pytest.raises(GoneError):
        vault.admin.adopt("keys/a/1", make)


@pytest.mark.parametrize(("hours", "words"), [(3, "ahead of Vault's"), (-8, "behind Vault's")])
def test_wrong_clock_is_refused(vault: TestVault, monkeypatch: pytest.MonkeyPatch, hours: int, words: str) -> None:
    _set_clock(monkeypatch, timedelta(hours=hours))
    vault.admin.list("accounts")
    with pytest.raises(RefusedError, match=f"clock is .* {words}"):
        vault.admin.require_true_clock()


@pytest.mark.parametrize("minutes", [-4, 0, 4])
def test_a_clock_near_vaults_is_good_enough(vault: TestVault, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    vault.admin.require_true_clock()
    _set_clock(monkeypatch, timedelta(minutes=minutes))
    vault.admin.list("accounts")
    vault.admin.require_true_clock()


def _set_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Set the clock that this machine compares with Vault's."""
    wrong = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + ahead.total_seconds())
    monkeypatch.setattr("broker.vault.transport.time", wrong)


def test_lost_compare_and_set_is_a_conflict(vault: TestVault) -> None:
    vault.admin.create("accounts/a", {})
    vault.admin.write("accounts/a", {"winner": True}, replacing=1)
    with pytest.raises(ConflictError):
        vault.admin.write("accounts/a", {"winner": False}, replacing=1)
    assert vault.admin.read("accounts/a").data == {"winner": True}


def test_denied_create_shows_no_existence(vault: TestVault) -> None:
    with pytest.raises(DeniedError):
        vault.connection(Role.AUDITOR).create("accounts/new", {})


def test_racing_creators_have_one_winner(vault: TestVault) -> None:
    outcomes: list[str] = []

    def create(number: int) -> None:
        try:
            vault.admin.create("locks/race", {"by": number})
            outcomes.append("won")
        except ConflictError:
            outcomes.append("lost")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 11 + ["won"]


def test_mount_requires_compare_and_set(vault: TestVault) -> None:
    with pytest.raises(InvalidError):
        vault.admin.call("POST", f"{vault.settings.mount}/data/accounts/a", {"data": {}})


def test_destroyed_number_stays_taken(vault: TestVault) -> None:
    vault.admin.create("keys/a/1", {"k": "one"})
    vault.admin.write("keys/a/1", {"k": "two"}, replacing=1)
    vault.admin.destroy_all("keys/a/1")
    assert vault.admin.versions("keys/a/1") == {1: False, 2: False}
    with pytest.raises(MissingError):
        vault.admin.read("keys/a/1")
    with pytest.raises(ConflictError):
        vault.admin.create("keys/a/1", {"k": "three"})
    vault.admin.destroy_all("keys/a/1")
    vault.admin.destroy_all("keys/a/never")


def test_list_is_sorted_and_marks_folders(vault: TestVault) -> None:
    for path in ("evidence/accounts/b/1", "evidence/accounts/a/10", "evidence/accounts/a/2"):
        vault.admin.create(path, {})
    assert vault.admin.list("evidence/accounts") == ("a/", "b/")
    assert vault.admin.list("evidence/accounts/a") == ("10", "2")


def test_missing_mount_hints_at_setup(vault: TestVault) -> None:
    elsewhere = Connection(replace(vault.settings, mount="nowhere"), FixedToken(token_of(vault.admin)))
    with pytest.raises(UnmountedError, match="nowhere") as caught:
        elsewhere.read("accounts/a")
    assert "vault setup" in caught.value.hint
    elsewhere.close()


def test_observer_sees_writes_only(vault: TestVault) -> None:
    seen: list[tuple[Phase, str]] = []
    token = FixedToken(token_of(vault.admin))
    connection = Connection(vault.settings, token, observer=lambda phase, path: seen.append((phase, path)))
    connection.create("keys/a/1", {})
    connection.read("keys/a/1")
    connection.list("keys/a")
    connection.destroy_all("keys/a/1")
    connection.ask("POST", "sys/capabilities-self", {"paths": ["x"]})
    connection.close()
    written, destroyed = f"{vault.settings.mount}/data/keys/a/1", f"{vault.settings.mount}/destroy/keys/a/1"
    assert seen == [
        (Phase.BEFORE, written), (Phase.AFTER, written), (Phase.BEFORE, destroyed), (Phase.AFTER, destroyed)
    ]  # fmt: skip


def test_observer_can_stop_a_write(vault: TestVault) -> None:
    class KilledError(Exception):
        pass

    def kill(phase: Phase, path: str) -> None:
        raise KilledError

    connection = Connection(vault.settings, FixedToken(token_of(vault.admin)), observer=kill)
    with pytest.raises(KilledError):
        connection.create("accounts/a", {})
    assert vault.admin.read_or_none("accounts/a") is None
    connection.close()


def test_a_namespace_is_another_world(vault: TestVault) -> None:
    space = f"team-{vault.settings.mount}"
    vault.admin.call("POST", f"sys/namespaces/{space}", {})
    inside = Connection(replace(vault.settings, namespace=space), FixedToken(token_of(vault.admin)))
    inside.call("POST", f"sys/mounts/{vault.settings.mount}", {"type": "kv", "options": {"version": "2"}})
    inside.create("accounts/a", {"where": "inside"})
    assert vault.admin.read_or_none("accounts/a") is None
    assert inside.read("accounts/a").data == {"where": "inside"}
    inside.close()
    vault.admin.call("DELETE", f"sys/namespaces/{space}")


def test_missing_or_dead_token_is_denied(vault: TestVault) -> None:
    nobody = Connection(vault.settings)
    dead = Connection(vault.settings, FixedToken(Secret("s.aaaaaaaaaaaaaaaaaaaaaaaa")))
    for connection in (nobody, dead):
        with pytest.raises(DeniedError):
            connection.read("accounts/a")
        connection.close()
    with pytest.raises(BadTokenError):
        vault.admin.ask("POST", "auth/token/lookup", {"token": "s.aaaaaaaaaaaaaaaaaaaaaaaa"})


@pytest.mark.parametrize("token", ["line\nbreak", "s.ünïcode✓", "\x00"])
def test_invalid_token_is_not_quoted(vault: TestVault, token: str) -> None:
    connection = Connection(replace(vault.settings, patience=0.1), FixedToken(Secret(token)))
    with pytest.raises((InputError, InvalidError)) as caught:
        connection.read("accounts/a")
    connection.close()
    assert token not in f"{caught.value!r} {caught.value.message} {caught.value.hint}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_odd_characters_in_a_path(vault: TestVault) -> None:
    vault.admin.create("accounts/a b?c#d%2e", {"odd": True})
    assert vault.admin.list("accounts") == ("a b?c#d%2e",)
