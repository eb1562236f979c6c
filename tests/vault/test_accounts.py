"""Account documents in a real vault: recognise our write among several."""

from __future__ import annotations

import pytest

from broker.copies import replace
from broker.errors import ConflictError
from broker.model.changes import registering
from broker.model.generation import Closed
from broker.model.names import AccountName
from broker.model.role import Role
from broker.rotation.ports import Version
from broker.telemetry import metrics
from broker.vault import layout
from broker.vault.accounts import VaultAccounts
from broker.vault.documents import DamagedDocumentError, encoded
from tests.support.accounts import NOW, STAMP, an_account, with_open_request
from tests.support.vault import TestVault


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


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


def test_an_account_of_many_rotations_is_stored(vault: TestVault) -> None:
    """OpenBao takes no request with more than 1,000 strings: such a document is one text."""
    accounts = VaultAccounts(vault.connection(Role.ROTATOR))
    old = replace(with_open_request().requests[0], closed=Closed.ANSWERED, closed_at=NOW, csr="")
    many = replace(an_account(), requests=tuple(replace(old, number=number) for number in range(1, 200)))
    vault.admin.write(f"accounts/{many.name}", encoded(an_account()), replacing=0)
    accounts.write(many, replacing=Version(1))
    assert accounts.read(many.name).account == many
    assert accounts.landed(many, replacing=Version(1))
    few = replace(many, requests=many.requests[:1])
    accounts.write(few, replacing=Version(2))
    assert accounts.read(many.name).account == few


@pytest.mark.parametrize("text", ["", "{", "[]", 7, None, "\\u0000"])
def test_a_text_that_is_no_account_is_refused(vault: TestVault, text: object) -> None:
    vault.admin.write("accounts/damaged", {"schema": 3, "text": text}, replacing=0)
    with pytest.raises(DamagedDocumentError):
        VaultAccounts(vault.connection(Role.ROTATOR)).read(AccountName("damaged"))


def test_accounts_that_were_seen_are_not_read(emptied_vault: TestVault) -> None:
    """A daemon's poll of its mailbox costs two listings, and what changed."""
    store = VaultAccounts(emptied_vault.connection(Role.ROTATOR))
    for name in ("mzp-1", "mzp-2", "mzp-3"):
        emptied_vault.admin.create(layout.account(name), encoded(an_account(name)))
    seen = {name: store.read(name) for name in map(AccountName, ("mzp-1", "mzp-2"))}
    changed = replace(an_account("mzp-2"), login="MZP-NEW")
    emptied_vault.admin.write(layout.account("mzp-2"), encoded(changed), replacing=1)
    before = sum(metrics.numbers().vault.values())
    found = store.all(seen).found
    assert sum(metrics.numbers().vault.values()) - before == 4
    assert found["mzp-1"] is seen[AccountName("mzp-1")].account
    assert found["mzp-2"] == changed
    assert set(found) == {"mzp-1", "mzp-2", "mzp-3"}
