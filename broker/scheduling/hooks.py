"""Hooks: programs of this host that run after something has happened. Recorded before they run, so a kill loses none.

A hook may run twice, with the same id. One that fails is run again at later sweeps, and stops nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from broker.errors import BrokerError
from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.names import AccountName
from broker.model.notice import PendingHook
from broker.model.plan import AccountPlan
from broker.model.rotation_record import RotationRecord
from broker.scheduling.ports import Fence, Records
from broker.telemetry import log

ATTEMPTS: Final = 5
_MOST: Final = 20  # pending hooks of an account


class HookEvent(Enum):
    """The events that have a hook: what happened."""

    PROMOTED = "promoted"  # another generation is current, by a person or the scheduler
    SUBMITTED = "submitted"
    RETIRED = "retired"
    FAILURE = "failure"  # a step of the scheduler failed


_OF: Final = {"promote-done": HookEvent.PROMOTED, "submit-done": HookEvent.SUBMITTED, "retire-done": HookEvent.RETIRED}


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of this host. `run` runs a program with exactly the variables that it is given."""

    account: Callable[[AccountName], Account]
    records: Records
    commands: Mapping[str, Sequence[str]]  # by the value of a HookEvent
    run: Callable[[Sequence[str], Mapping[str, str]], None]
    clock: Clock

    def run_hooks(self, name: AccountName, event: str) -> None:
        """Run the hook for `event` of the scheduler, such as "promote-done"; raise what it raises."""
        kind = _OF.get(event, HookEvent.FAILURE if event.endswith("-failed") else None)
        if kind is None or kind.value not in self.commands:
            return
        faults = [self._run(name, hook) for hook in self._recorded(self.account(name), kind, event).hooks]
        for fault in filter(None, faults):
            raise fault

    def catch_up(self, plans: Sequence[AccountPlan], fence: Fence) -> None:
        """Run what a kill or a failure left over, and the hook of a promotion that a person made."""
        for plan in plans if self.commands else ():
            record, account = self.records.read(plan.account), self.account(plan.account)
            if HookEvent.PROMOTED.value in self.commands and account.current and not account.removed:
                record = self._recorded(account, HookEvent.PROMOTED, "promote-done", record)
            for hook in record.hooks:
                fence()
                self._run(plan.account, hook)

    def _recorded(
        self, account: Account, kind: HookEvent, step: str, seen: RotationRecord | None = None
    ) -> RotationRecord:
        """Store that a hook must run, before it runs. A promotion has one hook, even if several notice it."""
        current, now = account.current, self.clock()
        order = current.order if current else 0
        if kind is HookEvent.PROMOTED and seen and seen.hooked == order:
            return seen
        number = order if kind is HookEvent.PROMOTED else f"{account.head.number}-{now:%Y%m%d%H%M%S}"
        hook = PendingHook(
            kind.value, f"{account.name}.{kind.value}.{number}", step, now, current.number if current else 0
        )

        def change(record: RotationRecord) -> RotationRecord:
            if kind is not HookEvent.PROMOTED:
                return replace(record, hooks=(*record.hooks, hook)[-_MOST:])
            if record.hooked == order:
                return record
            first = seen is not None and not record.hooked  # of an account that was promoted before there was a hook
            return replace(record, hooks=record.hooks if first else (*record.hooks, hook)[-_MOST:], hooked=order)

        return self.records.change(account.name, change)

    def _run(self, name: AccountName, hook: PendingHook) -> BrokerError | None:
        """Run a hook, and take note of how it ended. After some failures it is given up. Return its error."""
        command = self.commands.get(hook.event)
        try:
            if command:  # else it was configured when this happened, and is not any more
                self.run(command, variables(name, hook))
        except BrokerError as error:
            failed = replace(hook, failures=hook.failures + 1)
            self._noted(name, hook.id, failed if failed.failures < ATTEMPTS else None)
            log.error("hook failed", account=name, hook=hook.event, reason=error.message, failures=failed.failures)
            return error
        self._noted(name, hook.id, None)
        return None

    def _noted(self, name: AccountName, id_: str, after: PendingHook | None) -> None:
        def change(record: RotationRecord) -> RotationRecord:
            kept = (after if hook.id == id_ else hook for hook in record.hooks)
            return replace(record, hooks=tuple(filter(None, kept)))

        self.records.change(name, change)


def variables(name: AccountName, hook: PendingHook) -> Mapping[str, str]:
    """Return what a hook is told, in its environment. Nothing in it is secret."""
    return {
        "BROKER_EVENT": hook.event,
        "BROKER_EVENT_ID": hook.id,
        "BROKER_ACCOUNT": name,
        "BROKER_GENERATION": str(hook.generation or ""),
        "BROKER_STEP": hook.step,
        "BROKER_AT": f"{hook.at:%FT%TZ}",
    }
