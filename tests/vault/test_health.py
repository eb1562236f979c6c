"""Health of Vault, with a short time-out."""

from __future__ import annotations

import time

import pytest

from broker.vault.errors import PassingError
from broker.vault.health import health
from broker.vault.settings import VaultSettings


@pytest.mark.slow
def test_health_waits_three_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(PassingError):
        health(VaultSettings("http://127.0.0.1:1", patience=60.0))
    assert time.monotonic() - began < 30
