"""Keys that sign leases: rotated while services run, and destroyed when nothing needs them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from broker.errors import BrokerError, DeniedError, RefusedError
from broker.model.lease import LONGEST, BundleKind, Lease
from broker.model.role import Role
from broker.vault import layout
from broker.vault.connection import Connection, Observer, Phase
from broker.vault.lease_keys import OVERLAP, YOUNG, LeaseKeys, lease_signer, rotate_lease_key
from tests.support.accounts import MZP, NOW
from tests.support.vault import TestVault

pytestmark = pytest.mark.slow
PATH = layout.signer("lease")
SECOND = timedelta(seconds=1)


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def server(vault: TestVault) -> Connection:
    server = vault.connection(Role.SERVER)
    lease_signer(server, NOW)
    return server


@pytest.fixture
def rotator(vault: TestVault) -> Connection:
    return vault.connection(Role.ROTATOR)


def a_lease(issued: datetime = NOW) -> Lease:
    return Lease("id", "entity", MZP, "fleet", BundleKind.DIRECT, 1, issued, issued + LONGEST)


def rotate(vault: Connection, now: datetime = NOW, *, again: bool = True) -> LeaseKeys:
    return rotate_lease_key(vault, now, again=again)


def alive(vault: TestVault) -> int:
    """Return the number of versions that can be read, each of which holds keys."""
    return sum(vault.admin.versions(PATH).values())


def test_old_leases_are_valid_to_their_end(server: Connection, rotator: Connection) -> None:
    before = lease_signer(server, NOW).signed(a_lease())
    rotate(rotator)
    after = lease_signer(server, NOW)
    assert after.newest == "2"
    for when in (NOW, NOW + LONGEST - SECOND):
        assert lease_signer(server, when).opened(before, now=when) == a_lease()
    assert lease_signer(server, NOW).opened(after.signed(a_lease()), now=NOW) == a_lease()


def test_an_old_key_ends_even_if_it_lies_there(server: Connection, rotator: Connection) -> None:
    rotate(rotator)
    assert set(lease_signer(server, NOW + OVERLAP - SECOND).keys) == {"1", "2"}
    assert set(lease_signer(server, NOW + OVERLAP).keys) == {"2"}


def test_next_rotation_destroys_ended_keys(vault: TestVault, server: Connection, rotator: Connection) -> None:
    rotate(rotator)
    assert alive(vault) == 1, "old versions hold old keys"
    done = rotate(rotator, NOW + OVERLAP, again=False)
    assert (done.newest, done.ends, done.changed) == ("2", {}, False)
    assert set(vault.admin.read(PATH).data["value"]["keys"]) == {"2"}
    assert alive(vault) == 1


def test_a_timer_rotates_once_a_day(server: Connection, rotator: Connection) -> None:
    made = [rotate(rotator, NOW + hours, again=False).newest for hours in (timedelta(0), SECOND, YOUNG - SECOND, YOUNG)]
    assert made == ["2", "2", "2", "3"]


def test_a_rotation_that_is_done_writes_nothing(vault: TestVault, server: Connection, rotator: Connection) -> None:
    rotate(rotator)
    version = vault.admin.read(PATH).version
    assert not rotate(rotator, NOW + SECOND, again=False).changed
    assert vault.admin.read(PATH).version == version


def test_two_rotations_at_once_lose_no_key(vault: TestVault, server: Connection) -> None:
    text = lease_signer(server, NOW).signed(a_lease())
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: rotate(vault.connection(Role.ROTATOR), again=False), range(4)))
    assert {keys.newest for keys in done} == {"2"}
    assert [keys.changed for keys in done].count(True) == 1
    assert lease_signer(server, NOW).opened(text, now=NOW) == a_lease()
    assert alive(vault) == 1


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("phase", Phase)
def test_killed_rotation_is_finished_by_next(vault: TestVault, server: Connection, at: int, phase: Phase) -> None:
    text = lease_signer(server, NOW).signed(a_lease())
    with pytest.raises(KilledError):
        rotate(vault.connection(Role.ROTATOR, observer=_killing(at, phase)), again=False)
    assert lease_signer(server, NOW).opened(text, now=NOW) == a_lease()
    assert rotate(vault.connection(Role.ROTATOR), again=False).newest == "2"
    assert lease_signer(server, NOW).opened(text, now=NOW) == a_lease()
    assert alive(vault) == 1


def _killing(at: int, phase: Phase) -> Observer:
    seen: list[Phase] = []

    def observer(now: Phase, path: str) -> None:
        if "signers" in path:
            seen.append(now)
            if now is phase and seen.count(phase) == at:
                raise KilledError

    return observer


def test_no_key_is_rotated_before_one_was_made(rotator: Connection) -> None:
    with pytest.raises(RefusedError, match="no lease was signed yet"):
        rotate(rotator)


def test_only_the_rotator_rotates(vault: TestVault, server: Connection) -> None:
    for role in Role:
        if role is not Role.ROTATOR:
            with pytest.raises(DeniedError):
                rotate(vault.connection(role))


@pytest.mark.parametrize("change", [{"newest": "9"}, {"ends": {"1": "soon"}}, {"keys": {"x": "AA=="}}, {"more": 1}])
def test_damaged_keys_are_refused(
    vault: TestVault, server: Connection, rotator: Connection, change: dict[str, object]
) -> None:
    rotate(rotator)
    stored = vault.admin.read(PATH)
    value = {**stored.data["value"], **change}
    vault.admin.write(PATH, {**stored.data, "value": value}, replacing=stored.version)
    for use in (lambda: lease_signer(server, NOW), lambda: rotate(rotator)):
        with pytest.raises(BrokerError) as refused:
            use()
        assert isinstance(refused.value, RefusedError)
