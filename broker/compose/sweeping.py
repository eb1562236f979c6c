"""The sweeps of a daemon, and their results as numbers and for health checks."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from broker.errors import BrokerError, RefusedError, UnknownNameError, WaitingError
from broker.issuing.expiries import expiries
from broker.model.account import Account
from broker.model.names import AccountName
from broker.scheduling.decision import next_proof, proven_at
from broker.scheduling.ports import LockTakenError, LostLockError
from broker.scheduling.report import Standing, SweepReport
from broker.scheduling.sweep import Sweeps
from broker.telemetry import log
from broker.telemetry.metrics import Family


@dataclass(eq=False)
class Sweeping:
    """The sweeps of a daemon, and how they went."""

    sweeps: Sweeps
    notified: Callable[[Sequence[Account]], Mapping[str, float | None]]  # more numbers, by name
    ended: threading.Event = field(default_factory=threading.Event)
    last: SweepReport | None = None
    failed: BrokerError | None = None  # the newest sweep, if it did not finish
    leads: bool = False
    missed: int = 0
    failures: int = 0

    def sweep(self) -> None:
        """Sweep once. No error ends the daemon: the next sweep tries again."""
        try:
            report = self.sweeps.sweep()
        except (LockTakenError, LostLockError) as error:
            self.failed, self.leads = None, False
            log.info("no sweep", reason=error.message)
        except BrokerError as error:
            self.failed = error
            log.error("no sweep", reason=error.message, hint=error.hint, again=f"{self.sweeps.interval}")
        except Exception as error:  # noqa: BLE001  # a fault of ours: its text may hold anything
            self.failed = RefusedError(f"the sweep ended by an unexpected {type(error).__name__}: see the log")
            log.error("unexpected error", error=type(error).__name__, frames=log.frames(error))
        else:
            self.last, self.failed, self.leads = report, None, True
            self.missed, self.failures = self.missed + report.missed, self.failures + len(report.failures)
            log.info("sweep", accounts=report.accounts, read=report.read, done=len(report.deeds), missed=report.missed)

    def check(self) -> None:
        """Raise the error of the newest sweep, if it failed."""
        if self.failed:
            raise self.failed

    def check_account(self, name: AccountName) -> None:
        """Raise the error of an account that waits after a failure."""
        self.check()
        standing = self.sweeps.standings.get(name)
        if standing is None:
            raise UnknownNameError(f"no sweep has read an account {name}")
        for waits in standing.record.back_offs:
            raise WaitingError(f"{waits.step} of {name}: {waits.message}", hint=waits.hint)

    def metrics(self) -> bytes:
        """Return all numbers as text."""
        from broker.telemetry.exposition import Now, exposition  # other commands load no prometheus_client

        interval = self.sweeps.interval
        gauges: dict[str, tuple[str, Callable[[], float | None]]] = {
            "rotation_leader": ("1 if the newest sweep was this process's.", lambda: float(self.leads)),
            "rotation_missed_sweeps": ("Sweeps that did not happen in time.", lambda: self.missed),
            "rotation_failures": ("Actions that failed.", lambda: self.failures),
            "rotation_interval_seconds": (
                "Time between two sweeps.",
                lambda: interval.total_seconds() if interval else None,
            ),
            "rotation_last_sweep_timestamp_seconds": (
                "Newest sweep that came to its end.",
                lambda: self.last.at.timestamp() if self.last else None,
            ),
        }
        standings = list(self.sweeps.standings.values())
        try:
            more = self.notified([standing.account for standing in standings])
        except BrokerError as error:
            more = {}
            log.error("recipients cannot be read for metrics", reason=error.message)
        gauges |= {name: (_NOTIFIED.get(name, name), partial(more.get, name)) for name in more}
        ends = [end for standing in standings for end in expiries(standing.account)]
        return exposition(Now(gauges, lambda: ends, lambda: families(standings)))


def families(standings: Sequence[Standing]) -> Iterator[Family]:
    """Yield the numbers of each account. Lead times beside them make alerts relative."""
    found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _MEANINGS}
    for one in standings:
        account, plan, key = one.account, one.plan, (str(one.name),)
        if account.removed:
            continue
        found["rotation_phase"][*key, plan.phase.value] = 1
        if plan.due:
            found["rotation_due_timestamp_seconds"][key] = plan.due.at.timestamp()
            found["rotation_lead_time_seconds"][key] = plan.due.lead.time.total_seconds()
        proven, proof = proven_at(account), next_proof(account)
        if proven and proof:
            found["rotation_proven_timestamp_seconds"][key] = proven.timestamp()
            found["rotation_proof_due_timestamp_seconds"][key] = proof.timestamp()
        request = account.open_request
        if request and request.submissions:
            found["rotation_sent_timestamp_seconds"][key] = request.submissions[0].at.timestamp()
        for waits in one.record.back_offs:
            found["rotation_failing_since_timestamp_seconds"][*key, waits.step] = waits.since.timestamp()
            found["rotation_back_off_until_timestamp_seconds"][*key, waits.step] = waits.until.timestamp()
    for name, (meaning, *labels) in _MEANINGS.items():
        yield Family(name, meaning, tuple(labels), found[name])


_NOTIFIED: Final = {
    "notify_accounts_unreached": "Accounts whose notices reach nobody.",
    "notify_recipients_dead": "Recipients whose mails bounce.",
    "notify_oldest_test_timestamp_seconds": "Oldest of the newest tests of each recipient of the team.",
}
_MEANINGS: Final = {
    "rotation_phase": ("Phase of an account.", "account", "phase"),
    "rotation_due_timestamp_seconds": ("When renewal must start.", "account"),
    "rotation_lead_time_seconds": ("How long the partner takes to answer.", "account"),
    "rotation_proven_timestamp_seconds": ("Last canary of the current set that was accepted.", "account"),
    "rotation_proof_due_timestamp_seconds": ("When the current set is tried next.", "account"),
    "rotation_sent_timestamp_seconds": ("When the open request was sent.", "account"),
    "rotation_failing_since_timestamp_seconds": ("First failure in a row of a step.", "account", "step"),
    "rotation_back_off_until_timestamp_seconds": ("When a step that failed is tried again.", "account", "step"),
}
