"""The daemon: clock jumps, and what it says of sweeps that failed."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import pytest

from broker.compose import daemon
from broker.compose.sweeping import _NOTIFIED, Sweeping
from broker.errors import UnknownNameError, VaultUnavailableError, WaitingError
from broker.model.names import AccountName
from broker.model.verdict import Verdict
from tests.scheduling.simulated import Scheduled, begun
from tests.support.accounts import MZP
from tests.support.deployed import DEPLOY


def sweeping(made: Scheduled) -> Sweeping:
    return Sweeping(made.sweeps(timedelta(minutes=5)), lambda accounts: {"notify_recipients_dead": 1.0})


def test_a_clock_that_jumps_starts_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """APScheduler waits by the old time: an hour longer, if the clock was set back by an hour."""
    monkeypatch.setattr(daemon, "_LOOK", 0.001)
    ended, aheads = threading.Event(), iter([100.0, 100.5, 3700.0, 3700.0, 100.0, 100.0])
    jumps = []

    def ahead() -> float:
        found = next(aheads, None)
        if found is None:
            ended.set()
            return 100.0
        return found

    daemon._follow_jumps(ended, lambda: jumps.append(1), ahead)
    assert len(jumps) == 2


def test_absent_vault_is_reported_and_got_over() -> None:
    made = begun()
    made.fails["poll"] = VaultUnavailableError("Vault is sealed")
    one = sweeping(made)
    one.sweep()
    with pytest.raises(VaultUnavailableError):
        one.check()
    del made.fails["poll"]
    one.sweep()
    one.check()
    one.check_account(MZP)
    assert one.leads


def test_a_loser_is_well() -> None:
    made = begun()
    made.lost_at = 1
    one = sweeping(made)
    one.sweep()
    one.check()
    assert not one.leads


def test_an_account_that_waits_is_not_ready() -> None:
    made = begun()
    one = sweeping(made)
    made.sim.verdict = Verdict.PARTNER_DOWN
    made.sim.now += timedelta(days=8)
    one.sweep()
    with pytest.raises(WaitingError, match="prove of mzp-1"):
        one.check_account(MZP)
    with pytest.raises(UnknownNameError):
        one.check_account(AccountName("nobody"))
    text = one.metrics().decode()
    assert 'credential_broker_rotation_failing_since_timestamp_seconds{account="mzp-1",step="prove"}' in text
    assert "credential_broker_notify_recipients_dead 1.0" in text
    assert 'credential_broker_rotation_phase{account="mzp-1",phase="not-due"} 1.0' in text


def test_alerts_ask_for_numbers_that_exist() -> None:
    rules = (DEPLOY / "prometheus" / "rules.yaml").read_text()
    made = begun()
    made.sweep()
    wanted = set(re.findall(r"credential_broker_rotation_\w+", rules))
    one = sweeping(made)
    one.sweep()
    assert wanted <= set(re.findall(r"# HELP (\w+)", one.metrics().decode()))
    assert set(re.findall(r"credential_broker_(notify_\w+)", rules)) <= set(_NOTIFIED)


def test_numbers_without_recipients() -> None:
    made = begun()

    def away(accounts: object) -> dict[str, float | None]:
        raise VaultUnavailableError("Vault is sealed")

    one = Sweeping(made.sweeps(timedelta(minutes=5)), away)
    one.sweep()
    assert "rotation_leader 1.0" in one.metrics().decode()
