"""The scheduler, connected: what a sweep reads in Vault, and whom it asks outside."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from broker.compose.sweeping import Sweeping
from broker.errors import DeniedError, RefusedError
from broker.model.account import Account
from broker.model.duration import parse_duration
from broker.model.maintenance import Maintenance
from broker.model.plan import AccountPlan
from broker.model.role import Role
from broker.partners.planned import plan_of
from broker.rotation.reports import SchedulerStatus
from broker.rotation.rotation import Rotation
from broker.scheduling.ports import Fence
from broker.scheduling.sweep import Outside, Stores, Sweeps, fenced
from broker.systemd import State
from broker.vault.idle import VaultIdle
from broker.vault.locks import VaultLock, scheduler_status
from broker.vault.scheduler_state import VaultRotationRecords

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker


class Scheduling:
    """The rotator's scheduler."""

    def __init__(self, broker: Broker, report: Callable[[State], None]) -> None:
        self._broker = broker
        self._report = report

    def run(self, at: str, ready: Callable[[tuple[str, ...]], None]) -> None:
        """Sweep at the configured times until a signal asks to end; call `ready` with the address of its health."""
        from broker.compose.daemon import run  # APScheduler and the service's listeners

        interval = parse_duration(self._broker.config["rotation.interval"])
        sweeping = Sweeping(self.sweeps, self._broker.notifying.gauges)
        run(sweeping, interval, at, ready, self._report)

    def status(self) -> SchedulerStatus | None:
        """Return who sweeps, or swept last, as the auditor sees it; None if nobody did, or that cannot be read."""
        try:
            return scheduler_status(self._broker.roles.connection(Role.AUDITOR))
        except (DeniedError, RefusedError):  # by a policy of an older release; or a damaged document
            return None

    @cached_property
    def sweeps(self) -> Sweeps:
        """The sweeps of this process."""
        broker = self._broker
        vault, accounts = broker.roles.connection(Role.ROTATOR), broker.roles.accounts(Role.ROTATOR)
        holder = f"{broker.actor} on {socket.gethostname()}, process {os.getpid()}"
        lock = VaultLock(vault, holder, broker.true_clock)
        stores = Stores(accounts, accounts, VaultRotationRecords(vault), VaultIdle(vault), lock)
        outside = Outside(
            broker.submitting.by_machine,
            broker.arriving.poll,
            broker.notifying.notices.notify,
            broker.notifying.hooks.run_hooks,
        )
        windows = broker.planning.maintenance  # a mistake in it ends the command: it is no account's
        return Sweeps(stores, outside, self._rotation, partial(self._plan, windows), broker.true_clock)

    def _rotation(self, fence: Fence) -> Rotation:
        return fenced(self._broker.rotation, fence)

    def _plan(self, windows: Maintenance, account: Account, now: datetime) -> AccountPlan:
        profile = self._broker.profile(account.profile, Role.ROTATOR)
        return plan_of(account, profile, now, windows)
