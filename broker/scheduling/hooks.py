"""Hooks: programs of this host that run after something has happened.

They follow from what is stored, and are recorded before they run, so a kill loses none. A hook may run twice, with the
same id. One that fails is run again at later sweeps, and stops nothing else.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError
from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.notice import PendingHook
from broker.model.rotation_record import RotationRecord
from broker.model.stage import Stage
from broker.scheduling.ports import Fence, Records

ATTEMPTS: Final = 5
_MOST: Final = 20  # pending hooks of an account


class HookEvent(Enum):
    """The events that have a hook: what happened."""

    PROMOTED = "promoted"  # another generation is current, by a person or the scheduler
    SUBMITTED = "submitted"  # by either, too
    RETIRED = "retired"  # by either, too
    FAILURE = "failure"  # a step of the scheduler failed


_OF: Final = {"promote-done": HookEvent.PROMOTED, "submit-done": HookEvent.SUBMITTED, "retire-done": HookEvent.RETIRED}


class _Happened(Struct, frozen=True):
    """Something that has a hook. Of two that an account had, the later one has the higher `number`."""

    event: HookEvent
    number: int
    step: str  # of the scheduler, and how it ended
    at: datetime


class Hooks(Struct, frozen=True):
    """The hooks of this host. `run` runs a program with exactly the variables that it is given."""

    records: Records
    commands: Mapping[str, Sequence[str]]  # by the value of a HookEvent
    run: Callable[[Sequence[str], Mapping[str, str]], None]

    def run_hooks(
        self, account: Account, seen: RotationRecord, events: Collection[str], fence: Fence
    ) -> Iterator[tuple[str, BrokerError]]:
        """Run the hooks of what happened to an account, and those that were left over; yield what failed, by its step.

        `events` are those of this sweep, such as "promote-done". What people did has hooks too.
        """
        if not self.commands:
            return
        record = seen if account.removed else self._recorded(account, seen, events)
        for hook in record.hooks:
            fence()
            fault = self._run(account.name, hook)
            if fault:
                yield hook.step, fault

    def _recorded(self, account: Account, seen: RotationRecord, events: Collection[str]) -> RotationRecord:
        """Store which hooks must run, before they run: each event has one, even if several processes notice it.

        The first look at an account only takes note of what happened before there was a hook, except for the last one
        of each kind in `events`.
        """
        generation = account.current.number if account.current else 0
        just = {_OF.get(event, HookEvent.FAILURE if event.endswith("-failed") else None) for event in events}

        def change(record: RotationRecord) -> RotationRecord:
            hooks, hooked = record.hooks, dict(record.hooked)
            for event in (event for event in HookEvent if event.value in self.commands):
                found = [one for one in _happened(account, record) if one.event is event]
                last = max((one.number for one in found), default=0)
                before = hooked.get(event.value, last - (event in just))
                hooked[event.value] = max(last, before)
                hooks += tuple(_pending(account, one, generation) for one in found if one.number > before)
            return replace(record, hooks=hooks[-_MOST:], hooked=hooked)

        return seen if change(seen) == seen else self.records.change(account.name, change)

    def _run(self, name: AccountName, hook: PendingHook) -> BrokerError | None:
        """Run a hook, and take note of how it ended. After some failures it is given up. Return its error."""
        command = self.commands.get(hook.event)
        try:
            if command:  # else it was configured when this happened, and is not any more
                self.run(command, variables(name, hook))
        except BrokerError as error:
            failed = replace(hook, failures=hook.failures + 1)
            self._noted(name, hook.id, failed if failed.failures < ATTEMPTS else None)
            if failed.failures < ATTEMPTS:
                return error
            return type(error)(f"{error.message}; given up after {ATTEMPTS} times", hint=error.hint)
        self._noted(name, hook.id, None)
        return None

    def _noted(self, name: AccountName, id_: str, after: PendingHook | None) -> None:
        def change(record: RotationRecord) -> RotationRecord:
            kept = (after if hook.id == id_ else hook for hook in record.hooks)
            return replace(record, hooks=tuple(filter(None, kept)))

        self.records.change(name, change)


def _happened(account: Account, record: RotationRecord) -> Iterator[_Happened]:
    """Yield what has a hook, from what is stored: so a kill between an event and its hook loses none."""
    if account.current:
        yield _Happened(HookEvent.PROMOTED, account.current.order, "promote-done", account.current.since)
    sent = (submission for request in account.requests for submission in request.submissions)
    for number, submission in enumerate(sent, 1):
        yield _Happened(HookEvent.SUBMITTED, number, "submit-done", submission.at)
    for generation in account.generations:
        if generation.stage is Stage.RETIRED:
            yield _Happened(HookEvent.RETIRED, generation.order, "retire-done", generation.since)
    for failed in record.back_offs:
        if not failed.waits:
            number = int(failed.at.timestamp() * 1_000_000)
            yield _Happened(HookEvent.FAILURE, number, f"{failed.step}-failed", failed.at)


def _pending(account: Account, one: _Happened, generation: int) -> PendingHook:
    id_ = f"{account.name}.{one.event.value}.{one.number}"
    return PendingHook(one.event.value, id_, one.step, one.at, generation)


def variables(name: AccountName, hook: PendingHook) -> Mapping[str, str]:
    """Return the environment of a hook. Nothing in it is secret."""
    return {
        "BROKER_EVENT": hook.event,
        "BROKER_EVENT_ID": hook.id,
        "BROKER_ACCOUNT": name,
        "BROKER_GENERATION": str(hook.generation or ""),
        "BROKER_STEP": hook.step,
        "BROKER_AT": f"{hook.at:%FT%TZ}",
    }
