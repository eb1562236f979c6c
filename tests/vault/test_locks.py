"""The scheduler's lock: one leader, by the version of a document in a real vault."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import VaultUnavailableError
from broker.model.role import Role
from broker.rotation.reports import SchedulerStatus
from broker.scheduling.ports import LockTakenError, LostLockError
from broker.vault import layout
from broker.vault.connection import Connection, Phase
from broker.vault.locks import TERM, VaultLock, scheduler_status
from tests.support.vault import TestVault

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def vault(emptied_vault: TestVault) -> TestVault:
    return emptied_vault


def lock(vault: TestVault, holder: str = "one", *, term: timedelta = TERM) -> VaultLock:
    return VaultLock(vault.connection(Role.ROTATOR), holder, lambda: NOW, term)


class LateVault(Connection):
    """A Vault whose clock is an hour ahead of when the lock was written: the lock's term is over."""

    @property
    def their_clock(self) -> datetime | None:
        theirs = super().their_clock
        return theirs and theirs + timedelta(hours=1)


def later(vault: TestVault, holder: str) -> VaultLock:
    """Return a lock that finds every other's term over."""
    rotator = vault.connection(Role.ROTATOR)
    return VaultLock(LateVault(rotator.settings, rotator.tokens), holder, lambda: NOW)


def test_the_loser_says_who_leads(vault: TestVault) -> None:
    said = r"held by one since 2026-03-01 00:00:00Z, until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ if it does not renew it"
    refused = pytest.raises(LockTakenError, match=said)
    with lock(vault, "one").held(), refused, lock(vault, "two").held():
        pytest.fail("two leaders")


def test_an_auditor_sees_who_leads(vault: TestVault) -> None:
    auditor = vault.connection(Role.AUDITOR)
    assert scheduler_status(auditor) is None
    with lock(vault, "one").held():
        found = scheduler_status(auditor)
        assert found
        assert (found.holder, found.since, found.last_end) == ("one", NOW, None)
        stored = auditor.read(layout.LOCK)
        assert stored.made_at
        assert found.until == stored.made_at + TERM
    assert scheduler_status(auditor) == SchedulerStatus("one", NOW, None, NOW)


def test_the_next_one_comes_after_the_sweep(vault: TestVault) -> None:
    with lock(vault, "one").held() as first:
        assert first.last_end is None
    with lock(vault, "two").held() as second:
        assert second.last_end == NOW


def test_a_failed_sweep_gives_it_back(vault: TestVault) -> None:
    with pytest.raises(VaultUnavailableError), lock(vault).held():
        raise VaultUnavailableError("away")
    with lock(vault, "two").held() as second:
        assert second.last_end is None


def test_one_of_many_takes_it(vault: TestVault) -> None:
    locks = [lock(vault, f"n{number}").held() for number in range(6)]

    def taken(held: object) -> bool:
        try:
            held.__enter__()  # type: ignore[attr-defined]
        except LockTakenError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(taken, locks)) == 1


def test_an_old_leader_passes_no_fence(vault: TestVault) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(lock(vault, "one").held())
        new = stack.enter_context(later(vault, "two").held())
        with pytest.raises(LostLockError, match="two has it since"):
            old.fence()
        new.fence()
        stack.pop_all()  # the old leader gives nothing back


def test_it_is_renewed_while_held(vault: TestVault) -> None:
    def version() -> int:
        return vault.admin.read(layout.LOCK).version

    with lock(vault).held() as held:
        held.keep()
        assert version() == 1  # it was renewed a moment ago
        held.fence()
        assert version() == 2
    with lock(vault, term=timedelta(0)).held() as held:
        before = version()
        held.keep()
        assert version() == before + 1


def test_a_term_is_shorter_than_a_minute() -> None:
    assert timedelta(0) < TERM < timedelta(minutes=1)


def test_a_lost_answer_is_not_a_lost_lock(vault: TestVault) -> None:
    """A write that is sent again, since its answer was lost, conflicts with itself."""
    rotator = vault.connection(Role.ROTATOR)
    twice = Connection(rotator.settings, rotator.tokens)

    def again(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE:
            body = {"data": pending[0], "options": {"cas": pending[1]}}
            rotator.call("POST", path, body)

    pending: list[object] = []
    write = twice.write

    def noted(path: str, data: object, *, replacing: int) -> None:
        pending[:] = [data, replacing]
        write(path, data, replacing=replacing)  # type: ignore[arg-type]

    twice.observer, twice.write = again, noted  # type: ignore[method-assign]
    with VaultLock(twice, "one", lambda: NOW).held() as held:
        held.fence()


def test_a_damaged_lock_is_reported(vault: TestVault) -> None:
    vault.admin.create(layout.LOCK, {"schema": 2, "value": {"holder": 1}})
    with pytest.raises(Exception, match="the lock of the scheduler is damaged"), lock(vault).held():
        pytest.fail("taken")


def test_no_role_may_delete_its_metadata(vault: TestVault) -> None:
    """That would begin its versions again, and an old leader's next write would succeed."""
    with lock(vault).held():
        for role in Role:
            with pytest.raises(Exception, match=r"lacks delete|denies"):
                vault.connection(role).call("DELETE", f"{vault.settings.mount}/metadata/{layout.LOCK}")


def test_holders_are_named(vault: TestVault) -> None:
    with lock(vault, "a").held():
        assert vault.connection(Role.ROTATOR).read(layout.LOCK).data["value"]["holder"] == "a"


def test_clocks_of_machines_do_not_matter(vault: TestVault) -> None:
    with lock(vault, "one").held():
        off = NOW.replace(year=2099)
        with pytest.raises(LockTakenError), VaultLock(vault.connection(Role.ROTATOR), "two", lambda: off).held():
            pytest.fail("two leaders")
