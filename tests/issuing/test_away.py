"""Calls while Vault is away: one tries it, the others do not wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.compose.issuing import _ours
from broker.errors import DeniedError, PartlyUnavailableError, VaultUnavailableError
from broker.issuing.away import Away
from broker.telemetry import log
from broker.vault.errors import LackingError


def fails(error: Exception | None = None) -> None:
    raise error or VaultUnavailableError("sealed")


def away() -> Away:
    made = Away()
    with pytest.raises(VaultUnavailableError, match="sealed"):
        made.call(fails)
    return made


def test_one_tries_and_the_others_are_refused() -> None:
    vault, asked, answer = away(), threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        answer.wait(30)
        return "there"

    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(vault.call, slow)
        assert asked.wait(30)
        for _ in range(20):
            with pytest.raises(VaultUnavailableError, match="Vault is away"):
                vault.call(lambda: pytest.fail("a second call tries it"))
        answer.set()
        assert trying.result(30) == "there"
    assert vault.call(lambda: "there") == "there"


def test_an_old_failure_is_forgotten() -> None:
    """Else the first callers after an idle time are refused together, although Vault is back."""
    now = 100.0
    vault = Away(lambda: now)
    with pytest.raises(VaultUnavailableError, match="sealed"):
        vault.call(fails)
    now += 5
    _require_all_are_served(vault)


def test_a_long_try_stays_the_only_one() -> None:
    now = 100.0
    vault = Away(lambda: now)
    with pytest.raises(VaultUnavailableError, match="sealed"):
        vault.call(fails)

    def slow() -> None:
        nonlocal now
        now += 60
        with ThreadPoolExecutor(1) as pool, pytest.raises(VaultUnavailableError, match="Vault is away"):
            pool.submit(vault.call, lambda: pytest.fail("a second call tries it")).result(30)

    vault.call(slow)


def test_each_try_may_fail_again() -> None:
    vault = away()
    for _ in range(3):
        with pytest.raises(VaultUnavailableError, match="sealed"):
            vault.call(fails)


@pytest.mark.parametrize("error", [DeniedError("no"), PartlyUnavailableError("a stuck login")])
def test_vault_is_up_for_others(error: Exception) -> None:
    """It has answered: a denial, or that something else than Vault is away."""
    vault = away()
    with pytest.raises(type(error)):
        vault.call(lambda: fails(error))
    _require_all_are_served(vault)


def test_a_right_that_we_lack_stops_no_other() -> None:
    """Such as one for an account that the server's policy leaves out: consumers may have a right to it."""
    vault, lines = Away(), []
    log.send_to(log.Level.ERROR, lambda _level, event, fields: lines.append((event, fields["reason"])))

    @_ours()
    def lacking() -> None:
        raise LackingError("role server lacks read on accounts/another")

    with pytest.raises(VaultUnavailableError, match="denies the broker"):
        vault.call(lacking)
    assert lines == [("Vault denies a request of the broker itself", "role server lacks read on accounts/another")]
    _require_all_are_served(vault)


def _require_all_are_served(vault: Away) -> None:
    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda _: vault.call(lambda: both.wait(30)), range(2)))) == 2
