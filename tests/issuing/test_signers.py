"""A service follows the rotation of its signing key without a restart, and forgers do not make it ask Vault much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import pytest

from broker.errors import DeniedError, VaultUnavailableError
from broker.issuing.leases import LeaseSigner
from broker.issuing.signers import READ, Signers
from broker.model.lease import BundleKind, Lease
from broker.model.secret import Secret
from tests.support.accounts import MZP, NOW, later

LEASE = Lease("id", "entity", MZP, "fleet", BundleKind.DIRECT, 1, NOW, later(hours=1))
KEYS = {"1": Secret(b"1" * 32), "2": Secret(b"2" * 32), "3": Secret(b"3" * 32)}
FORGED = LeaseSigner("3", KEYS).signed(LEASE)


@dataclass
class Vault:
    """The document of the keys, and the services that read it."""

    newest: str = "1"
    uptime: float = 0.0
    reads: int = 0
    away: bool = False
    signers: Signers = field(init=False)

    def __post_init__(self) -> None:
        self.signers = Signers(self.read, lambda: self.uptime)

    def held(self) -> LeaseSigner:
        return LeaseSigner(self.newest, {kid: key for kid, key in KEYS.items() if kid <= self.newest})

    async def read(self) -> LeaseSigner:
        self.reads += 1
        if self.away:
            raise VaultUnavailableError("away")
        return self.held()


def run(test: Callable[[Vault], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(Vault()), 30))


def test_a_new_key_signs_within_half_a_minute() -> None:
    async def test(vault: Vault) -> None:
        assert (await vault.signers.current()).newest == "1"
        vault.newest = "2"
        vault.uptime += READ
        assert (await vault.signers.current()).newest == "2"

    run(test)


def test_a_lease_of_a_key_that_another_read_first() -> None:
    async def test(vault: Vault) -> None:
        await vault.signers.current()
        vault.newest = "2"
        assert await vault.signers.opened(vault.held().signed(LEASE), now=NOW) == LEASE

    run(test)


def test_forgers_make_few_reads() -> None:
    async def test(vault: Vault) -> None:
        for moment in range(300):
            vault.uptime = moment / 100
            with pytest.raises(DeniedError):
                await vault.signers.opened(FORGED, now=NOW)
            await asyncio.sleep(0)
        assert vault.reads <= 8

    run(test)


def test_nonsense_makes_no_read() -> None:
    async def test(vault: Vault) -> None:
        await vault.signers.current()
        for text in ("", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.", "eyJhbGciOiJIUzI1NiIsImtpZCI6WzFdfQ.e30."):
            with pytest.raises(DeniedError):
                await vault.signers.opened(Secret(text), now=NOW)
        assert vault.reads <= 2

    run(test)


def test_old_keys_open_nothing_without_vault() -> None:
    """Whether a key has ended, or a lease was revoked, cannot be known then."""

    async def test(vault: Vault) -> None:
        text = vault.held().signed(LEASE)
        await vault.signers.opened(text, now=NOW)
        vault.away, vault.uptime = True, READ
        with pytest.raises(VaultUnavailableError):
            await vault.signers.opened(text, now=NOW)

    run(test)
