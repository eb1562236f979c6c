"""The mark of the mailbox in a real vault: it only rises."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.copies import replace
from broker.model.role import Role
from broker.scheduling.replies import Mark
from broker.vault.scheduler_state import VaultMailboxMarks
from tests.support.vault import TestVault

MARK = Mark("broker@mail.example:993/INBOX", 7, 40, datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def test_a_slower_process_does_not_set_it_back(vault: TestVault) -> None:
    marks = VaultMailboxMarks(vault.connection(Role.ROTATOR))
    assert marks.read() == Mark()
    marks.advance(MARK)
    marks.advance(replace(MARK, uid=39))
    assert marks.read() == MARK
    marks.advance(replace(MARK, uid=41))
    assert marks.read().uid == 41


def test_another_mailbox_begins_anew(vault: TestVault) -> None:
    marks = VaultMailboxMarks(vault.connection(Role.ROTATOR))
    marks.advance(MARK)
    for other in (replace(MARK, validity=8, uid=1), replace(MARK, mailbox="another", uid=2)):
        marks.advance(other)
        assert marks.read() == other
