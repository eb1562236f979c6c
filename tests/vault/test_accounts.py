"""Account documents in a real vault: recognise our write among several."""

from __future__ import annotations

import pytest

from broker.errors import ConflictError
from broker.model.changes import registering
from broker.model.role import Role
from broker.rotation.ports import Version
from broker.vault import layout
from broker.vault.accounts import VaultAccounts
from tests.support.accounts import STAMP, an_account
from tests.support.vault import TestVault


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ROTATOR])
def test_write_is_recognised_after_others(vault: TestVault, role: Role) -> None:
    VaultAccounts(vault.admin).write(an_account(), replacing=Version(0))
    accounts, before = VaultAccounts(vault.connection(role)), Version(1)
    ours = registering.application_set(an_account(), "ours", "", STAMP)
    theirs = registering.application_set(an_account(), "theirs", "", STAMP)
    accounts.write(ours, replacing=before)
    for version in range(2, 8):
        accounts.write(theirs, replacing=Version(version))
    with pytest.raises(ConflictError):
        accounts.write(ours, replacing=before)
    assert accounts.landed(ours, replacing=before)
    assert not accounts.landed(theirs, replacing=before)


def test_dropped_version_is_not_recognised(vault: TestVault) -> None:
    accounts, account = VaultAccounts(vault.admin), an_account()
    for version in range(15):
        accounts.write(account, replacing=Version(version))
    assert not accounts.landed(account, replacing=Version(0))
    assert vault.admin.read(layout.account(account.name)).version == 15
