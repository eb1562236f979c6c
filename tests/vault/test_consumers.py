"""Records of consumers under lost answers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import ConflictError
from broker.model.holdings import ConsumerRecord
from broker.model.lease import BundleKind, Lease
from broker.model.role import Role
from broker.vault.connection import Connection
from broker.vault.consumers import VaultConsumers
from tests.support.accounts import MZP, NOW
from tests.support.vault import TestVault

pytestmark = pytest.mark.slow


def test_a_lost_answer_hides_no_revocation(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease has the epoch of its own write, though a person revoked it before that was known to have landed."""
    consumers, write = VaultConsumers(vault.connection(Role.SERVER)), Connection.write
    lease = Lease("l1", "e-1", MZP, "fleet", BundleKind.DIRECT, 1, NOW, NOW + timedelta(hours=1))

    def revoked(record: ConsumerRecord) -> ConsumerRecord:
        return record.ended(record.holdings[0], now=NOW)

    def lost(connection: Connection, *args: object, **options: object) -> int:
        write(connection, *args, **options)  # type: ignore[arg-type]
        monkeypatch.undo()
        VaultConsumers(vault.admin).change("e-1", "reader", revoked)
        raise ConflictError("as the second attempt says")

    monkeypatch.setattr(Connection, "write", lost)
    made = consumers.change_known("e-1", "reader", lambda record: record.given(lease, now=NOW), None)
    assert (made.version, made.record.epoch, len(made.record.holdings)) == (1, 0, 1)
    newest = consumers.read("e-1")
    assert newest
    assert newest.has_revoked(lease)
