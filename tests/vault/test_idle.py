"""Which accounts a sweep need not read: versions in one listing, and the list of idle accounts."""

from __future__ import annotations

from datetime import date

import pytest

from broker.model.names import AccountName
from broker.model.role import Role
from broker.rotation.ports import Version
from broker.vault import layout, listing
from broker.vault.accounts import VaultAccounts
from broker.vault.idle import VaultIdle
from tests.support.vault import TestVault

DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
SOME = {AccountName("acme"): Version(3), AccountName("other"): Version(12)}


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def stored(vault: TestVault, *names: str) -> None:
    for name in names:
        vault.admin.create(layout.account(name), {"any": "thing"})


def test_versions_come_in_one_listing(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(vault, "a", "b", "c", "d", "e")
    vault.admin.write(layout.account("b"), {"any": "other"}, replacing=1)
    vault.admin.create("accounts/not ours", {"x": 1})
    monkeypatch.setattr(listing, "_PAGE", 2)
    found = VaultAccounts(vault.connection(Role.ROTATOR)).versions()
    assert found == {"a": 1, "b": 2, "c": 1, "d": 1, "e": 1}


def test_a_vault_without_it_gives_names(vault: TestVault) -> None:
    """As the server role sees it, which lacks the right: HashiCorp's Vault has no such listing."""
    stored(vault, "a", "b")
    assert VaultAccounts(vault.connection(Role.SERVER)).versions() == {"a": 0, "b": 0}


def test_no_account_is_no_fault(vault: TestVault) -> None:
    assert VaultAccounts(vault.connection(Role.ROTATOR)).versions() == {}


def test_idle_accounts_are_for_one_day(vault: TestVault) -> None:
    idle = VaultIdle(vault.connection(Role.ROTATOR))
    assert idle.read(DAY) == {}
    idle.write(DAY, SOME)
    assert idle.read(DAY) == SOME
    assert idle.read(NEXT) == {}


def test_more_than_1000_accounts_fit(vault: TestVault) -> None:
    idle, many = VaultIdle(vault.connection(Role.ROTATOR)), {AccountName(f"a-{n}"): Version(n) for n in range(1, 90000)}
    idle.write(DAY, many)
    found = idle.read(DAY)
    assert 20_000 < len(found) < len(many)
    assert found.items() <= many.items()


@pytest.mark.parametrize("value", [{"day": 1}, {"day": "2026-03-01", "versions": "acme=x =3 ==="}])
def test_a_damaged_list_hides_no_account(vault: TestVault, value: object) -> None:
    vault.admin.create(layout.IDLE, {"schema": 2, "value": value})
    idle = VaultIdle(vault.connection(Role.ROTATOR))
    assert "acme" not in idle.read(DAY)
    idle.write(DAY, SOME)
    assert idle.read(DAY) == SOME
