"""The lock of the scheduler: a document under compare-and-set, whose version is the fence.

Its age is Vault's business alone: the time of the newest version, and the date of the answer that shows it. So the
clocks of our machines do not matter. The metadata of the document is never deleted: that would begin its versions
again, and an old leader's next write would succeed.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.copies import replace
from broker.errors import BrokerError, ConflictError
from broker.model.clock import Clock
from broker.rotation.reports import SchedulerStatus
from broker.scheduling.ports import Leader, Leadership, LockTakenError, LostLockError
from broker.vault import layout
from broker.vault.connection import Connection, Stored
from broker.vault.documents import decoded, encoded

TERM: Final = timedelta(seconds=45)  # without a renewal, another may take the lock
_ROUNDED: Final = timedelta(seconds=1)  # Vault's date has whole seconds


@dataclass(eq=False)
class VaultLock:
    """`scheduling.ports.Lock` on KV v2. `holder` says who we are, for the others."""

    vault: Connection
    holder: str
    clock: Clock
    term: timedelta = TERM

    @contextmanager
    def held(self) -> Iterator[Leadership]:
        """Take the lock for the body, and give it back; raise `LockTakenError` if another has it.

        Each call of its fence renews the lock, or raises `LostLockError`.
        """
        held = self._taken()
        try:
            yield Leadership(held.renew, held.keep, held.leader.last_end)
        except LostLockError:
            raise
        except BaseException:
            with suppress(BrokerError):
                held.give_back(self.clock(), ended=False)
            raise
        held.give_back(self.clock(), ended=True)

    def _taken(self) -> "_Held":
        stored = self.vault.read_or_none(layout.LOCK)
        before = decoded(stored.data, Leader, "the lock of the scheduler") if stored else None
        if stored and before and not before.ended and not self._is_over(stored):
            until = f", until {stored.made_at + self.term:%F %TZ} if it does not renew it" if stored.made_at else ""
            raise LockTakenError(
                f"the lock is held by {before.holder} since {before.since:%F %TZ}{until}",
                hint="nothing to do: it gives the lock back after its sweep, and a later sweep of ours takes it",
            )
        leader = Leader(self.holder, secrets.token_hex(8), self.clock(), last_end=before.last_end if before else None)
        held = _Held(self.vault, leader, stored.version if stored else 0, self.term / 3)
        try:
            held.renew()
        except LostLockError as error:
            raise LockTakenError(error.message, hint="nothing to do: it sweeps for all") from None
        return held

    def _is_over(self, stored: Stored) -> bool:
        now = self.vault.their_clock
        return bool(now and stored.made_at and now - stored.made_at > self.term + _ROUNDED)


def scheduler_status(vault: Connection) -> SchedulerStatus | None:
    """Return who sweeps, or swept last; None if nobody did yet."""
    stored = vault.read_or_none(layout.LOCK)
    if stored is None:
        return None
    found = decoded(stored.data, Leader, "the lock of the scheduler")
    until = stored.made_at + TERM if stored.made_at and not found.ended else None
    return SchedulerStatus(found.holder, found.since, until, found.last_end)


@dataclass(eq=False)
class _Held:
    """The lock while we have it: `version` is what our next write replaces."""

    vault: Connection
    leader: Leader
    version: int
    often: timedelta
    renewed: float = 0.0  # by this machine's uptime

    def keep(self) -> None:
        """Renew the lock if it was not renewed for a while."""
        if time.monotonic() - self.renewed > self.often.total_seconds():
            self.renew()

    def renew(self) -> None:
        """Write the lock again, as the version after ours; raise `LostLockError` if another did first."""
        document = encoded(self.leader)
        try:
            self.vault.write(layout.LOCK, document, replacing=self.version)
        except ConflictError:
            if not self.vault.landed(layout.LOCK, document, self.version):
                raise self._lost() from None
        self.version, self.renewed = self.version + 1, time.monotonic()

    def give_back(self, now: datetime, *, ended: bool) -> None:
        """Let the next one in; note when the sweep ended, if it came to its end."""
        self.leader = replace(self.leader, ended=True, last_end=now if ended else self.leader.last_end)
        self.renew()

    def _lost(self) -> LostLockError:
        stored = self.vault.read_or_none(layout.LOCK)
        winner = decoded(stored.data, Leader, "the lock of the scheduler") if stored else None
        who = f"{winner.holder} has it since {winner.since:%F %TZ}" if winner else "its document is gone"
        return LostLockError(f"this scheduler is not the leader any more: {who}", hint="nothing to do: the next sweep")
