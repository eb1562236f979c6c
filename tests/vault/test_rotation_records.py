"""Rotation records in a real vault."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest

from broker.copies import replace
from broker.errors import DeniedError, RefusedError
from broker.model.finding import Finding
from broker.model.names import AccountName
from broker.model.proposal import LARGEST, LONGEST, MOST_CLOSED, MOST_WAITING, Arrival, Outcome, Proposal
from broker.model.role import Role
from broker.model.rotation_record import BackOff, RotationRecord
from broker.vault import layout
from broker.vault.scheduler_state import VaultRotationRecords
from tests.support.vault import TestVault

ACME = AccountName("acme")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FAILED = BackOff("draft", NOW, NOW, NOW, 1, 3, "the partner is down")


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def counted(record: RotationRecord, by: int = 0) -> RotationRecord:
    failures = 1 + sum(back_off.failures for back_off in record.back_offs)
    return replace(record, back_offs=(replace(FAILED, failures=failures, message=f"by {by}"),))


def test_a_record_is_empty_at_first(vault: TestVault) -> None:
    records = VaultRotationRecords(vault.connection(Role.ROTATOR))
    assert records.read(ACME) == RotationRecord()
    assert records.change(ACME, lambda record: record) == RotationRecord()
    assert not vault.admin.list(layout.ROTATION)  # nothing was written


def test_no_concurrent_change_is_lost(vault: TestVault) -> None:
    records = VaultRotationRecords(vault.connection(Role.ROTATOR))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda by: records.change(ACME, partial(counted, by=by)), range(8)))
    read = VaultRotationRecords(vault.connection(Role.AUDITOR)).read(ACME)
    assert read.back_offs[0].failures == 8


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ROTATOR])
def test_only_the_rotator_writes_it(vault: TestVault, role: Role) -> None:
    with pytest.raises(DeniedError):
        VaultRotationRecords(vault.connection(role)).change(ACME, counted)


def test_a_damaged_record_is_refused(vault: TestVault) -> None:
    vault.admin.create(layout.rotation(ACME), {"schema": 2, "value": {"back_offs": "x"}})
    with pytest.raises(RefusedError, match="the rotation record of acme is damaged"):
        VaultRotationRecords(vault.connection(Role.ROTATOR)).change(ACME, counted)


def test_a_full_record_fits_into_vault(vault: TestVault) -> None:
    """OpenBao counts keys and texts, and limits octets."""
    records, note = (
        VaultRotationRecords(vault.connection(Role.ROTATOR)),
        Finding.error("reply.ca", "m" * 600, "h" * 600),
    )
    lines = ("l" * LONGEST,) * 8
    full = Proposal("", Arrival.REPLY, NOW, "mail", holds=lines, findings=(note,) * 6, material="M" * LARGEST)
    closed = [replace(full, id=f"c{n}", material="", outcome=Outcome.DISMISSED) for n in range(MOST_CLOSED)]
    filled = RotationRecord(proposals=(*closed, *(replace(full, id=f"w{n}") for n in range(MOST_WAITING))))
    records.change(ACME, lambda _: filled)
    assert records.read(ACME) == filled
