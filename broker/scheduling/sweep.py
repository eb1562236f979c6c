"""The sweep: one look at every account whose time has come, and the actions that follow. Killed, it is run again.

Every action is one of the rotation's use-cases, which survive a kill and a second process. The lock only spares double
work, and its fence keeps an old leader from sending a canary, a mail or a hook.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from msgspec import Struct

from broker.copies import replace
from broker.errors import (
    BrokerError,
    ConflictError,
    PartlyUnavailableError,
    VaultUnavailableError,
    WaitingError,
)
from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.generation import Parts
from broker.model.names import AccountName
from broker.model.plan import AccountPlan
from broker.model.rotation_record import BackOff, RotationRecord
from broker.model.verdict import CanaryResult
from broker.rotation.ports import Accounts, Version
from broker.rotation.reports import require_ok
from broker.rotation.rotation import Rotation
from broker.scheduling.decision import Decision, Do, decide, is_idle_until
from broker.scheduling.ports import (
    Fence,
    Idle,
    Leadership,
    Listing,
    Lock,
    LostLockError,
    Notify,
    PollReplies,
    Records,
    RunHooks,
    Submit,
)
from broker.scheduling.report import Deed, Result, Standing, SweepReport
from broker.telemetry import log


class Stores(Struct, frozen=True):
    """What a sweep reads."""

    accounts: Accounts
    listing: Listing
    records: Records
    idle: Idle
    lock: Lock


class Outside(Struct, frozen=True):
    """What a sweep does beside the rotation's use-cases; in this order before and after the accounts."""

    submit: Submit
    poll_replies: PollReplies
    notify: Notify
    run_hooks: RunHooks


@dataclass(eq=False)
class Sweeps:
    """Sweeps of one process. `rotation` returns the use-cases, with a fence before each canary.

    `interval` is the time between two sweeps, None if somebody else starts them. `standings` has what was read so far.
    """

    stores: Stores
    outside: Outside
    rotation: Callable[[Fence], Rotation]
    plan: Callable[[Account, datetime], AccountPlan]
    clock: Clock
    interval: timedelta | None = None
    ending: Callable[[], bool] = lambda: False
    standings: dict[AccountName, Standing] = field(default_factory=dict)

    def sweep(self) -> SweepReport:
        """Take the lock, look at the accounts whose time has come, act, and give the lock back.

        Raise `LockTakenError` or `LostLockError` if another leads, `RefusedError` if this machine's clock is wrong, and
        `VaultUnavailableError`. The next sweep goes on from where this one ended.
        """
        self.clock()  # a wrong clock is refused before anything is written
        with self.stores.lock.held() as lead:
            return _Sweep(self, lead, self.rotation(lead.fence)).run()

    def rehearse(self) -> SweepReport:
        """Return what a sweep would do first for each account. Change nothing, and take no lock."""
        now, deeds = self.clock(), []
        names = self.stores.listing.versions()
        for name in sorted(names):
            try:
                standing = self.read(name, now)
            except VaultUnavailableError:
                raise
            except BrokerError as error:
                deeds.append(Deed(name, "read", Result.FAILED, message=error.message, hint=error.hint))
                continue
            wanted = next(decide(standing.account, standing.plan, standing.record, now), None)
            if wanted:
                deeds.append(Deed(name, wanted.do.value, Result.WOULD, wanted.number))
        return SweepReport(now, len(names), len(names), 0, tuple(deeds))

    def read(self, name: AccountName, now: datetime) -> Standing:
        """Return an account as it is now."""
        seen = self.stores.accounts.read(name)
        return Standing(seen.version, seen.account, self.plan(seen.account, now), self.stores.records.read(name))

    def missed(self, last_end: datetime | None, now: datetime) -> int:
        """Return how many sweeps did not happen since the last one, of any process."""
        if self.interval is None or last_end is None or now <= last_end:
            return 0
        return max(0, int((now - last_end) / self.interval) - 1)


@dataclass(eq=False)
class _Sweep:
    sweeps: Sweeps
    lead: Leadership
    rotation: Rotation
    deeds: list[Deed] = field(default_factory=list)
    looked_at: list[Standing] = field(default_factory=list)

    def run(self) -> SweepReport:
        now, sweeps = self.sweeps.clock(), self.sweeps
        missed = sweeps.missed(self.lead.last_end, now)
        self._all("poll replies", sweeps.outside.poll_replies)
        versions, idle = sweeps.stores.listing.versions(), sweeps.stores.idle.read(now.date())
        due = [name for name, version in versions.items() if not self._may_skip(name, version, idle)]
        for name in due:
            if sweeps.ending():
                break
            self.lead.keep()
            sweeps.clock()  # raises if it is wrong meanwhile: then nothing goes on
            self._look_at(name)
        else:
            self._all("notify", self._notify)
        for name in sweeps.standings.keys() - versions.keys():
            del sweeps.standings[name]
        self._remember(now, {name: version for name, version in idle.items() if name in versions})
        return SweepReport(now, len(versions), len(due), missed, tuple(self.deeds))

    def _notify(self) -> None:
        self.sweeps.outside.notify([standing.plan for standing in self.looked_at], self.lead.fence)

    def _may_skip(self, name: AccountName, version: Version, idle: Mapping[AccountName, Version]) -> bool:
        """Return whether nothing can have come up. A process that shows numbers has read each account once itself."""
        known = self.sweeps.standings.get(name)
        seen = known.version if known else 0
        return version != 0 and idle.get(name) == version and (self.sweeps.interval is None or seen == version)

    def _remember(self, now: datetime, idle: dict[AccountName, Version]) -> None:
        """Store which accounts are idle until this day is over, in UTC."""
        failed = {deed.account for deed in self.deeds if deed.result is Result.FAILED}
        before, midnight = dict(idle), datetime.combine(now.date() + timedelta(days=1), time(), UTC)
        for one in self.looked_at:
            until = is_idle_until(one.account, one.plan, one.record)
            idle.pop(one.name, None)
            if one.account.removed or (until and until >= midnight and one.name not in failed):
                idle[one.name] = one.version
        if idle != before:
            self.sweeps.stores.idle.write(now.date(), idle)

    def _look_at(self, name: AccountName) -> None:
        """Do what is due for one account. What fails here stops no other account."""

        before = len(self.deeds)

        def look() -> None:
            standing = self._settled(name)
            self.looked_at.append(standing)
            self.sweeps.standings[name] = standing
            events = [f"{deed.do}-{deed.result.value}" for deed in self.deeds[before:]]
            self._all("hooks", lambda: self._run_hooks(standing, events), name)

        self._all("read", look, name)

    def _run_hooks(self, standing: Standing, events: Sequence[str]) -> None:
        account, record = standing.account, standing.record
        for step, error in self.sweeps.outside.run_hooks(account, record, events, self.lead.fence):
            self._note(Deed(account.name, f"hook {step}", Result.FAILED, message=error.message, hint=error.hint))

    def _settled(self, name: AccountName) -> Standing:
        """Do what is due for an account, each action once, and return where it then stands."""
        tried: set[Decision] = set()
        while True:
            now = self.sweeps.clock()
            standing = self.sweeps.read(name, now)
            due = decide(standing.account, standing.plan, standing.record, now)
            wanted = next((one for one in due if one not in tried), None)
            if wanted is None:
                return standing
            tried.add(wanted)
            self._do(standing, wanted)

    def _do(self, standing: Standing, wanted: Decision) -> None:
        """Do what is `wanted`, and note the result. A failure backs off."""
        name, step = standing.name, wanted.do.value
        try:
            if not self._act(name, wanted, standing.account):
                by_hand = f"broker csr submit {name}"
                self._note(Deed(name, step, Result.WAITING, wanted.number, "only a person can send it", by_hand))
                return
        except BrokerError as error:
            if _ends_the_sweep(error):
                raise
            if isinstance(error, ConflictError) and error.retryable:  # the next sweep sees what the other did
                self._note(Deed(name, step, Result.OVERTAKEN, wanted.number, error.message, error.hint))
                return
            result = Result.WAITING if isinstance(error, WaitingError) else Result.FAILED
            back_off = self._backed_off(standing, step, error)
            self._note(Deed(name, step, result, wanted.number, error.message, error.hint, back_off.until))
            return
        self._note(Deed(name, step, Result.DONE, wanted.number))
        if standing.record.back_offs:
            before, after = standing.account.head.number, self._account(name).head.number
            self._change(name, lambda record: record.succeeded(step, before=before, after=after))

    def _act(self, name: AccountName, wanted: Decision, account: Account) -> bool:
        """Run the use-case; return False if only a person can do it."""
        rotation, number = self.rotation, wanted.number
        match wanted.do:
            case Do.SETTLE:
                rotation.settle(name)
            case Do.DRAFT:
                rotation.draft(name)
            case Do.SUBMIT:
                return self._submit(account, number)
            case Do.CANARY | Do.PROVE:
                require_ok(name, number, rotation.try_out(name, number))
            case Do.PROMOTE:
                rotation.promote(name, number)
            case Do.RETIRE:
                rotation.retire(name, number)
        return True

    def _submit(self, account: Account, number: int) -> bool:
        self.lead.fence()
        submission = self.sweeps.outside.submit(account, account.request(number))
        if submission is None:
            return False
        if not self._account(account.name).request(number).closed:  # a machine may have answered already
            self.rotation.submit(account.name, number, submission)
        return True

    def _backed_off(self, standing: Standing, step: str, error: BrokerError) -> BackOff:
        """Store when `step` is tried again."""
        now, account = self.sweeps.clock(), self._account(standing.name)
        current = account.current
        end = account.certificate(current.parts.certificate).not_after if current else None
        waits = isinstance(error, WaitingError)
        failure = BackOff(step, now, now, now, 1, account.head.number, error.message, error.hint, waits)
        before = standing.account.head.number
        record = self._change(standing.name, lambda seen: seen.failed(failure, before=before, valid_until=end))
        return next(back_off for back_off in record.back_offs if back_off.step == step)

    def _account(self, name: AccountName) -> Account:
        return self.sweeps.stores.accounts.read(name).account

    def _change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        return self.sweeps.stores.records.change(name, change)

    def _all(self, what: str, act: Callable[[], None], account: str = "") -> None:
        """Run `act`. If it fails, that is noted, and everything else goes on."""
        try:
            act()
        except BrokerError as error:
            if _ends_the_sweep(error):
                raise
            self._note(Deed(account, what, Result.FAILED, message=error.message, hint=error.hint))
        except Exception as error:  # noqa: BLE001  # a fault of ours: its text may hold anything
            log.error("unexpected error", account=account, error=type(error).__name__, frames=log.frames(error))
            self._note(Deed(account, what, Result.FAILED, message=f"unexpected {type(error).__name__}: see the log"))

    def _note(self, deed: Deed) -> None:
        self.deeds.append(deed)
        write = log.error if deed.result is Result.FAILED else log.info
        write("rotation", account=deed.account, do=deed.do, result=deed.result.value, reason=deed.message)


def _ends_the_sweep(error: BrokerError) -> bool:
    """Return whether nothing may go on: another leads, or Vault is away."""
    away = isinstance(error, VaultUnavailableError) and not isinstance(error, PartlyUnavailableError)
    return away or isinstance(error, LostLockError)


def fenced(rotation: Rotation, fence: Fence) -> Rotation:
    """Return `rotation` with `fence` before each canary: before it is reserved, and before it is sent."""

    def prepared(account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        send = rotation.canary(account, parts)
        fence()

        def sent() -> CanaryResult:
            fence()
            return send()

        return sent

    return replace(rotation, canary=prepared)
