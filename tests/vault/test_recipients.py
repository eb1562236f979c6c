"""Recipients of notices in a real vault."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from broker.copies import replace
from broker.errors import DeniedError, RefusedError
from broker.model.recipient import REMEMBERED, Digest, Recipient, Recipients
from broker.model.role import Role
from broker.scheduling.notices import LARGEST
from broker.vault import layout
from broker.vault.scheduler_state import VaultRecipients
from tests.support.vault import TestVault

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
FULL = Recipient("a@x.example", NOW, NOW, NOW, "no such user", 2, NOW, Digest("n", NOW, ("e",)), ("m",))


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def test_a_recipient_is_read_as_written(vault: TestVault) -> None:
    written = VaultRecipients(vault.connection(Role.ROTATOR)).change(lambda _: Recipients((FULL,)))
    assert VaultRecipients(vault.connection(Role.AUDITOR)).read() == written == Recipients((FULL,))


def test_no_concurrent_change_is_lost(vault: TestVault) -> None:
    recipients = VaultRecipients(vault.connection(Role.ROTATOR))
    assert recipients.read() == Recipients()

    def add(number: int) -> None:
        recipients.change(lambda found: found.change(f"{number}@x", lambda r: r.took("m", NOW)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(8)))
    assert len(recipients.read().known) == 8


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ROTATOR])
def test_only_the_rotator_writes_them(vault: TestVault, role: Role) -> None:
    with pytest.raises(DeniedError):
        VaultRecipients(vault.connection(role)).change(lambda _: Recipients((FULL,)))


def test_a_damaged_document_is_refused(vault: TestVault) -> None:
    vault.admin.create(layout.RECIPIENTS, {"schema": 2, "value": {"known": "x"}})
    with pytest.raises(RefusedError, match="the document of recipients is damaged"):
        VaultRecipients(vault.connection(Role.ROTATOR)).read()


def test_many_recipients_fit(vault: TestVault) -> None:
    """Vault takes a thousand strings in a document, and a megabyte."""
    events = tuple(f"account-{n}.sent-r{n}s.begin" for n in range(LARGEST))
    ids = tuple(f"{n:024x}.01234567" for n in range(REMEMBERED))
    full = Recipients(
        tuple(replace(FULL, name=f"{n:03}@x", digest=Digest("n", NOW, events), ids=ids) for n in range(60))
    )
    recipients = VaultRecipients(vault.connection(Role.ROTATOR))
    assert recipients.change(lambda _: full) == full == recipients.read()
