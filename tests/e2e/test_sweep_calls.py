"""The sweep's requests to Vault grow with what is due, not with the number of accounts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.compose.graph import Broker, Wiring
from broker.config import resolve
from broker.copies import replace
from broker.model.account import Account
from broker.telemetry import metrics
from broker.vault import layout
from broker.vault.documents import encoded
from tests.support.accounts import NOW, an_account, with_current
from tests.support.system import System

pytestmark = pytest.mark.slow
MOST = 10  # the lock taken and given back, the versions, the idle list; a look at Vault's clock, and one login


def idle(name: str) -> Account:
    """Return an account with nothing to do for months."""
    return replace(with_current(an_account(name)), outbox=())


def swept(system: System, **passed: float) -> tuple[int, int]:
    """Sweep as `--once` does, in a process of its own; return how many accounts it read, and its requests to Vault."""
    clock = NOW + timedelta(**passed)
    config = resolve(flags={}, environment=system.environment, file=None, defaults={"actor": "scheduler"})
    broker = Broker(config, system.environment, wiring=Wiring(lambda: clock))
    try:
        before = sum(metrics.numbers().vault.values())
        report = broker.scheduling.sweeps.sweep()
        assert not report.failures
        return report.read, sum(metrics.numbers().vault.values()) - before
    finally:
        broker.close()


@pytest.mark.parametrize("accounts", [200, pytest.param(1000, marks=pytest.mark.deep)])
def test_idle_accounts_cost_nothing(system: System, accounts: int) -> None:
    admin = system.vault.admin
    for number in range(accounts):
        admin.create(layout.account(f"a-{number}"), encoded(idle(f"a-{number}")))
    read, requests = swept(system, hours=1)
    assert (read, requests >= 2 * accounts) == (accounts, True)  # the first sweep of a day
    read, few = swept(system, hours=2)
    assert (read, few <= MOST) == (0, True), few
    stored = admin.read(layout.account("a-7"))
    admin.write(layout.account("a-7"), {**stored.data}, replacing=stored.version)  # a person changed it
    read, more = swept(system, hours=3)
    assert (read, more <= few + 4) == (1, True), more
