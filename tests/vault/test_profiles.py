"""Custom profiles in Vault: stored once, and not over one that another stored meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.errors import ConflictError
from broker.partners.catalogue import builtin
from broker.partners.document import to_document
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.policies import Role
from broker.vault.profiles import own_profiles, store_profile
from tests.support.vault import TestVault

OURS = replace(builtin("stellantis"), name="own")
THEIRS = replace(OURS, title="Another partner")


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
    assert own_profiles(operator).found == {"own": to_document(OURS)}
    assert len(vault.admin.versions(layout.profile("own"))) == 1


def test_profile_stored_meanwhile_is_kept(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = vault.connection(Role.OPERATOR)
    landing(monkeypatch, vault.admin, to_document(THEIRS))
    with pytest.raises(ConflictError, match="another profile own") as caught:
        store_profile(operator, OURS)
    assert "broker partner show own" in caught.value.hint
    assert own_profiles(operator).found == {"own": to_document(THEIRS)}
