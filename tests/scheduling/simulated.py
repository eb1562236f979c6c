"""Sweeps over the in-memory simulation of one account: its records, the lock, and what leaves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from broker.copies import replace
from broker.errors import BrokerError
from broker.model.account import Account
from broker.model.changes.requesting import answered
from broker.model.clock import Stamp
from broker.model.due import Renewal
from broker.model.generation import SigningRequest, Submission
from broker.model.maintenance import Maintenance
from broker.model.names import AccountName
from broker.model.plan import AccountPlan, account_plan
from broker.model.rotation_record import RotationRecord
from broker.rotation.amend import amend
from broker.rotation.ports import ForkedEvidenceError, Version
from broker.rotation.rotation import Rotation
from broker.scheduling.ports import Fence, Leadership, LostLockError
from broker.scheduling.report import Result, SweepReport
from broker.scheduling.sweep import Outside, Stores, Sweeps, fenced
from tests.rotation.life_cycle import Commands, Step, lived
from tests.rotation.simulation import Simulation
from tests.support.accounts import BY, MZP, a_certificate

__all__ = ["RENEWAL", "Scheduled", "begun", "done"]

RENEWAL = Renewal(safety=timedelta(days=14), overlap=timedelta(days=7))
_FIRST: tuple[Step, ...] = (
    lambda c: c.open(),
    lambda c: c.application(),
    lambda c: c.password("pw-1"),
    lambda c: c.draft(),
    lambda c: c.submit(),
    lambda c: c.answer(1),
    lambda c: c.promote(1),
    lambda c: c.settle(),
)


@dataclass
class Scheduled:
    """A simulation, and a scheduler's stores beside it. It is `Records`, `Idle`, `Lock` and `Listing`."""

    sim: Simulation
    maintenance: Maintenance = field(default_factory=Maintenance)
    record: RotationRecord = field(default_factory=RotationRecord)
    kept: dict[date, Mapping[AccountName, Version]] = field(default_factory=dict)
    last_end: datetime | None = None
    sent: list[int] = field(default_factory=list)  # requests that were submitted
    events: list[str] = field(default_factory=list)
    told: list[AccountPlan] = field(default_factory=list)
    fences: int = 0
    lost_at: int = 0  # the fence that finds the lock lost
    settles: bool = True  # else Vault fails then
    forked: bool = False
    answers: bool = False  # whether the partner is a machine
    fails: dict[str, BrokerError] = field(default_factory=dict)

    # -- ports

    def read_record(self, name: AccountName) -> RotationRecord:
        return self.record

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        self.record = change(self.record)
        return self.record

    def versions(self) -> Mapping[AccountName, Version]:
        return {name: self.sim.read(name).version for name in self.sim.names()}

    def read(self, day: date) -> Mapping[AccountName, Version]:
        return self.kept.get(day, {})

    def write(self, day: date, versions: Mapping[AccountName, Version]) -> None:
        self.kept = {day: dict(versions)}

    @contextmanager
    def held(self) -> Iterator[Leadership]:
        yield Leadership(self.fence, lambda: None, self.last_end)
        self.last_end = self.sim.now

    def fence(self) -> None:
        self.fences += 1
        if self.fences == self.lost_at:
            raise LostLockError("another leads")

    def submit(self, account: Account, request: SigningRequest) -> Submission | None:
        self._fail("submit")
        self.sent.append(request.number)
        submission = Submission(self.sim.now, "vault-pki" if self.answers else "smtp", message_id="<1@broker.test>")
        if self.answers:
            Commands(self.sim).rotation.submit(account.name, request.number, submission)
            self.answer(request.number)
        return submission

    def notify(self, plans: Sequence[AccountPlan], fence: Fence) -> None:
        self._fail("notify")
        fence()
        self.told = list(plans)

    def settle(self, name: AccountName) -> None:
        if self.forked:
            raise ForkedEvidenceError("another entry is there")
        if self.settles:
            Commands(self.sim).settle()

    def hook(
        self, account: Account, record: RotationRecord, events: Collection[str], fence: Fence
    ) -> Iterator[tuple[str, BrokerError]]:
        if "hook" in self.fails:
            yield "submit-done", self.fails["hook"]
        for event in events:
            fence()
            self.events.append(event)

    def poll(self) -> None:
        self._fail("poll")

    def _fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    # -- what tests do

    def sweeps(self, interval: timedelta | None = None) -> Sweeps:
        def rotation(fence: Fence) -> Rotation:
            made = replace(self.sim.rotation("scheduler"), settle=self.settle)
            return fenced(made, fence)

        stores = Stores(self.sim, self, _Records(self), self, self)
        outside = Outside(self.submit, self.poll, self.notify, self.hook)
        plan = partial(_planned, self.maintenance)
        return Sweeps(stores, outside, rotation, plan, self.sim.clock, interval)

    def sweep(self, **passed: float) -> SweepReport:
        """Let time pass, and sweep as `--once` does."""
        self.sim.now += timedelta(**passed)
        return self.sweeps().sweep()

    def answer(self, number: int) -> None:
        """Import a certificate of a year, as `receive` does."""

        def admit(account: Account) -> Account:
            made = replace(a_certificate(account, number), spki=account.request(number).spki)
            made = replace(made, not_before=self.sim.now, not_after=self.sim.now + timedelta(days=365))
            return answered(account, number, made, Stamp(self.sim.now, BY))

        amend(self.sim, MZP, admit)
        Commands(self.sim).settle()

    def set_(self, **fields: Any) -> None:
        """Change settings of the account, as a person does."""
        amend(self.sim, MZP, lambda account: replace(account, **fields))


@dataclass
class _Records:
    scheduled: Scheduled

    def read(self, name: AccountName) -> RotationRecord:
        return self.scheduled.read_record(name)

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        return self.scheduled.change(name, change)


def _planned(maintenance: Maintenance, account: Account, now: datetime) -> AccountPlan:
    return account_plan(account, RENEWAL, now, maintenance)


def begun(**fields: Any) -> Scheduled:
    """Return an account with a current certificate of a year, and no work left."""
    made = Scheduled(lived(Simulation(), _FIRST))
    made.set_(**fields)
    return made


def done(report: SweepReport, result: Result = Result.DONE) -> list[str]:
    """Return what a sweep did with `result`."""
    return [deed.do for deed in report.deeds if deed.result is result]
