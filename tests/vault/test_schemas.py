"""Schemas of documents in Vault: a document of a newer broker is refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.authentication import PASSWORD
from broker.model.chain import Head, appended
from broker.model.clock import Stamp
from broker.model.generation import SecretRef, key_ref
from broker.model.holdings import ConsumerRecord
from broker.model.secret import Secret
from broker.partners import catalogue
from broker.rotation.ports import Version
from broker.vault import layout
from broker.vault.accounts import VaultAccounts
from broker.vault.connection import Connection
from broker.vault.consumers import VaultConsumers
from broker.vault.documents import SCHEMA, NewerSchemaError
from broker.vault.evidence import VaultEvidence, VaultStatements
from broker.vault.lease_keys import lease_signer
from broker.vault.secrets import VaultKeys, VaultNamedSecrets
from tests.support.accounts import MZP, NOW, PLANTED, an_account
from tests.support.vault import TestVault

pytestmark = pytest.mark.slow

ENTRY: Final = appended(f"accounts/{MZP}", Head(), Stamp(NOW, "ops"), "breaker-reset", {})
FIRST: Final = SecretRef("password:1")
RULES: Final = catalogue.builtin("stellantis").key


def given(record: ConsumerRecord) -> ConsumerRecord:
    return replace(record, name="writer")


def signer(vault: Connection) -> object:
    return lease_signer(vault, NOW)


# kind: (where it lies, what writes it, what reads it)
KINDS: Final[dict[str, tuple[str, Callable[[Connection], object], Callable[[Connection], object]]]] = {
    "account": (
        layout.account(MZP),
        lambda v: VaultAccounts(v).write(an_account(), replacing=Version(0)),
        lambda v: VaultAccounts(v).read(MZP),
    ),
    "consumer": (
        layout.consumer("entity-1"),
        lambda v: VaultConsumers(v).change("entity-1", "reader", given),
        lambda v: VaultConsumers(v).change("entity-1", "reader", given),
    ),
    "key": (
        layout.key(MZP, 1),
        lambda v: VaultKeys(v).ensure(MZP, 1, RULES),
        lambda v: VaultKeys(v).key(MZP, key_ref(1)),
    ),
    "key, adopted": (
        layout.key(MZP, 2),
        lambda v: VaultKeys(v).ensure(MZP, 2, RULES),
        lambda v: VaultKeys(v).ensure(MZP, 2, RULES),
    ),
    "password": (
        layout.secret(MZP, PASSWORD, 1),
        lambda v: VaultNamedSecrets(v).store(MZP, FIRST, Secret(PLANTED)),
        lambda v: VaultNamedSecrets(v).secret(MZP, FIRST),
    ),
    "keys of leases": (layout.signer("lease"), signer, signer),
    "key of evidence": (
        layout.signer("anchor"),
        lambda v: VaultStatements(v).key(),
        lambda v: VaultStatements(v).key(),
    ),
    "public key of evidence": (
        layout.ANCHOR_KEY,
        lambda v: VaultStatements(v).key(),
        lambda v: VaultStatements(v).verifying_key(),
    ),
    "entry of evidence": (
        layout.evidence(ENTRY.chain, 1),
        lambda v: VaultEvidence(v).append(ENTRY),
        lambda v: VaultEvidence(v).append(ENTRY),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_newer_document_is_left_unchanged(vault: TestVault, kind: str) -> None:
    path, write, read = KINDS[kind]
    write(vault.admin)
    read(vault.admin)
    stored = vault.admin.read(path)
    assert stored.data["schema"] == SCHEMA
    vault.admin.write(path, {**stored.data, "schema": 99}, replacing=stored.version)
    with pytest.raises(NewerSchemaError, match="has schema 99") as refused:
        read(vault.admin)
    assert "upgrade this broker" in refused.value.hint
    assert vault.admin.read(path).version == stored.version + 1


@pytest.mark.parametrize("kind", ["key", "password", "keys of leases", "key of evidence"])
@pytest.mark.parametrize(
    "value", [{}, {"password": 7}, {"pkcs8": "é", "spki": ""}, {"seed": "!"}, {"newest": "1", "keys": {}}]
)
def test_damaged_secret_is_not_shown(vault: TestVault, kind: str, value: object) -> None:
    path, _, read = KINDS[kind]
    vault.admin.create(path, {"schema": SCHEMA, "value": value})
    with pytest.raises(RefusedError):
        read(vault.admin)
