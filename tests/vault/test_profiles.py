"""Custom profiles in Vault: stored once, and not over one that another stored meanwhile."""

from __future__ import annotations

import pytest

from broker.compose.graph import Broker
from broker.config import resolve
from broker.copies import replace
from broker.errors import ConflictError, UnknownNameError
from broker.model.role import Role
from broker.partners.catalogue import builtin, load
from broker.partners.document import to_document
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.profiles import StoredProfiles, store_profile
from tests.support.vault import TestVault

OURS = replace(builtin("stellantis"), name="own")
THEIRS = replace(OURS, title="Another partner")


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def landing(monkeypatch: pytest.MonkeyPatch, other: Connection, document: dict[str, object]) -> None:
    """Let another store `document` just before each of our writes, so that ours meet a conflict."""
    write = Connection.write

    def late(self: Connection, path: str, data: dict[str, object], *, replacing: int) -> None:
        write(other, path, document, replacing=replacing)
        write(self, path, data, replacing=replacing)

    monkeypatch.setattr(Connection, "write", late)


def test_same_profile_stored_twice_is_one(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = vault.connection(Role.OPERATOR)
    landing(monkeypatch, vault.admin, to_document(OURS))
    store_profile(operator, OURS)
    assert StoredProfiles(operator) == {"own": to_document(OURS)}
    assert len(vault.admin.versions(layout.profile("own"))) == 1


def test_profile_stored_meanwhile_is_kept(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = vault.connection(Role.OPERATOR)
    landing(monkeypatch, vault.admin, to_document(THEIRS))
    with pytest.raises(ConflictError, match="another profile own") as caught:
        store_profile(operator, OURS)
    assert "broker partner show own" in caught.value.hint
    assert StoredProfiles(operator) == {"own": to_document(THEIRS)}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the paths that are read, and the folders that are listed."""
    found: list[str] = []

    def watch(name: str) -> None:
        call = getattr(Connection, name)

        def watched(self: Connection, path: str) -> object:
            found.append(path)
            return call(self, path)

        monkeypatch.setattr(Connection, name, watched)

    watch("read")
    watch("list")
    return found


def test_loading_a_profile_reads_one(vault: TestVault, reads: list[str]) -> None:
    for name in ("own", "another"):
        store_profile(vault.admin, replace(OURS, name=name))
    reads.clear()
    assert load("own", StoredProfiles(vault.connection(Role.CANARY))) == OURS
    assert reads == [layout.profile("own")]


def test_an_unknown_name_lists_the_names(vault: TestVault, reads: list[str]) -> None:
    store_profile(vault.admin, OURS)
    reads.clear()
    for name, hint in (("owm", "did you mean own?"), ("../own", "there are own, stellantis")):
        with pytest.raises(UnknownNameError) as caught:
            load(name, StoredProfiles(vault.connection(Role.SERVER)))
        assert hint in caught.value.hint
    assert reads == [layout.profile("owm"), layout.PROFILES, layout.PROFILES]


def test_a_long_lived_process_sees_a_change(vault: TestVault) -> None:
    config = resolve(flags={}, environment={}, file=None, defaults={"actor": "test"})
    broker = Broker(config, {})
    broker.roles._connections[Role.SERVER] = vault.connection(Role.SERVER)
    for stored in (OURS, THEIRS):
        store_profile(vault.admin, stored)
        assert broker.profile("own", Role.SERVER) == stored
    assert broker.profile("stellantis", Role.SERVER) is broker.profile("stellantis", Role.SERVER)
