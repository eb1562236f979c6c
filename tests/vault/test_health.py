"""Health of Vault, with a short time-out."""

from __future__ import annotations

from typing import Any

import pytest

from broker.vault import health as module
from broker.vault.connection import Connection
from broker.vault.errors import PassingError
from broker.vault.health import health
from broker.vault.settings import VaultSettings


@pytest.mark.parametrize(("patience", "waits"), [(60.0, 3.0), (0.1, 0.1)])
def test_health_waits_three_seconds(monkeypatch: pytest.MonkeyPatch, patience: float, waits: float) -> None:
    asked: list[float] = []

    class Away(Connection):
        def ask(self, *_: Any, **__: Any) -> Any:
            asked.append(self.settings.patience)
            raise PassingError("away")

    monkeypatch.setattr(module, "Connection", Away)
    with pytest.raises(PassingError):
        health(VaultSettings("http://127.0.0.1:1", patience=patience))
    assert asked == [waits]
