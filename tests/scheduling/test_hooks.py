"""Hooks: recorded before they run, with the same id when they run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from broker.compose.graph import Broker
from broker.config import resolve
from broker.copies import replace
from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.changes import moving, requesting
from broker.model.generation import Halt, Submission
from broker.model.rotation_record import BackOff, RotationRecord
from broker.model.stage import Move
from broker.scheduling.hooks import ATTEMPTS, Hooks
from tests.support.accounts import MZP, NOW, STAMP, promoted, with_answer, with_current, with_open_request
from tests.support.notice_world import Killed, NoticeWorld

ALL: Final = {event: ["/bin/hook", event] for event in ("promoted", "submitted", "retired", "failure")}


@dataclass
class HookWorld(NoticeWorld):
    """A world in which hooks run: `ran` has their variables, and while `failing` they fail."""

    commands: Mapping[str, Sequence[str]] = field(default_factory=lambda: ALL)
    ran: list[Mapping[str, str]] = field(default_factory=list)
    failing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hooks = Hooks(self.records, self.commands, self._run)

    def _run(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.call()
        if self.failing:
            raise RefusedError("hook ended with exit code 1")
        self.ran.append(variables)
        self.call()

    def run(self, *events: str) -> list[str]:
        """Run the hooks after a sweep did `events`; return what failed."""
        account = self.accounts[MZP]
        failed = self.hooks.run_hooks(account, self.records.read(MZP), events, self._fence)
        return [f"{step}: {error.message}" for step, error in failed]

    def ids(self) -> list[str]:
        return [variables["BROKER_EVENT_ID"] for variables in self.ran]


def world(account: Account | None = None, **fields: object) -> HookWorld:
    return HookWorld({MZP: account or with_current()}, **fields)  # type: ignore[arg-type]


def submitted(account: Account) -> Account:
    asked = with_open_request(account)
    assert asked.open_request
    return requesting.submitted(asked, asked.open_request.number, Submission(NOW, "eml"), by="x")


def rotated(account: Account) -> Account:
    return promoted(with_answer(account), 2)


def retired(account: Account) -> Account:
    return moving.moved(rotated(account), 1, Move.RETIRE, STAMP)


def failed(record: RotationRecord, *, waits: bool = False) -> RotationRecord:
    failure = BackOff("submit", NOW, NOW, NOW, 1, 0, "the mail server is away", waits=waits)
    return record.failed(failure, before=0, valid_until=None)


# What happens, the step that reports it, and its hook
EVENTS: Final[dict[str, tuple[Callable[[Account], Account], str]]] = {
    "promoted": (rotated, "promote-done"),
    "submitted": (submitted, "submit-done"),
    "retired": (retired, "retire-done"),
    "failure": (lambda account: account, "submit-failed"),
}


def happens(one: HookWorld, hook: str) -> str:
    """Let it happen; return the step that reports it."""
    change, step = EVENTS[hook]
    one.accounts[MZP] = change(one.accounts[MZP])
    if hook == "failure":
        one.records.change(MZP, failed)
    return step


@pytest.mark.parametrize("hook", EVENTS)
def test_each_event_has_its_hook(hook: str) -> None:
    """Also at the first look, which runs none for what happened before."""
    one = world()
    step = happens(one, hook)
    one.run(step)
    [variables] = one.ran
    assert (variables["BROKER_EVENT"], variables["BROKER_STEP"]) == (hook, step)
    assert (variables["BROKER_ACCOUNT"], variables["BROKER_GENERATION"]) == (
        MZP,
        "2" if hook in ("promoted", "retired") else "1",
    )
    assert variables["BROKER_AT"] == f"{NOW:%FT%TZ}"
    assert not one.records.read(MZP).hooks


@pytest.mark.parametrize("event", ["draft-done", "canary-done", "retire-waiting"])
def test_other_events_have_none(event: str) -> None:
    one = world()
    one.run(event)
    assert not one.ran


@pytest.mark.parametrize("hook", EVENTS)
def test_a_kill_anywhere_repeats_the_same_id(hook: str) -> None:
    """Also between the event and its record: what is stored says that it happened."""
    kills = 0
    for kill_at in range(1, 20):
        one = world()
        one.run()
        step = happens(one, hook)
        one.calls, one.kill_at = 0, kill_at
        try:
            one.run(step)
        except Killed:
            kills += 1
        one.kill_at = 0
        one.run()
        assert len({id_ for id_ in one.ids() if f".{hook}." in id_}) == 1, f"killed at {kill_at}"
        assert not one.records.read(MZP).hooks
    assert kills >= 5


@pytest.mark.parametrize("hook", EVENTS)
def test_the_hook_of_what_people_do(hook: str) -> None:
    """The first look only takes note: whatever is so then was so before there was a hook."""
    one = world(EVENTS[hook][0](with_current()))
    if hook == "failure":
        one.records.change(MZP, failed)
    one.run()
    assert not one.ran
    one = world()
    one.run()
    happens(one, hook)
    one.run()
    one.run()
    one.run(EVENTS[hook][1])
    assert [variables["BROKER_EVENT"] for variables in one.ran].count(hook) == 1


def test_what_waits_is_no_failure() -> None:
    one = world()
    one.run()
    one.records.change(MZP, partial(failed, waits=True))
    one.run()
    assert not one.ran


def test_a_failing_hook_is_given_up() -> None:
    one = world(submitted(with_current()), failing=True)
    expected = "submit-done: hook ended with exit code 1"
    assert one.run("submit-done") == [expected]
    for _ in range(ATTEMPTS - 2):
        assert one.run() == [expected]
        assert one.records.read(MZP).hooks
    assert one.run() == [f"{expected}; given up after {ATTEMPTS} times"]
    assert not one.records.read(MZP).hooks


def test_each_failure_has_its_own_step() -> None:
    """One of before is not taken for one of the step that was just done."""
    one = world(submitted(with_current()), failing=True)
    one.run("submit-done")
    one.accounts[MZP] = rotated(one.accounts[MZP])
    assert [line.partition(":")[0] for line in one.run("promote-done")] == ["submit-done", "promote-done"]


def test_one_without_a_command_is_dropped() -> None:
    """It was configured when the event happened, and is not any more."""
    one = world(submitted(with_current()), failing=True)
    assert one.run("submit-done")
    one.hooks = replace(one.hooks, commands={"retired": ["/bin/hook"]})
    one.run()
    assert not one.records.read(MZP).hooks


def test_a_removed_account_has_no_promotion() -> None:
    one = world()
    one.run()
    gone = promoted(with_answer(one.accounts[MZP]), 2)
    one.accounts[MZP] = replace(gone, removed=Halt(NOW, "over"))
    one.run()
    assert not one.ran


def test_no_hooks_mean_no_reads() -> None:
    one = world(commands={})
    one.run("promote-done")
    assert one.calls == 0


def test_a_hook_gets_no_token(tmp_path: Path) -> None:
    """A hook of the configuration, run as the scheduler runs it: our tokens are not in its environment."""
    out, script = tmp_path / "out", tmp_path / "hook"
    script.write_text(f'#!/bin/sh\nenv > "{out}"\n')
    script.chmod(0o700)
    file = tmp_path / "broker.toml"
    file.write_text(f'version = 1\n[vault]\naddress = "unix:///nowhere"\n[hooks]\non_promoted = ["{script}", "a b"]\n')
    environment = {"VAULT_TOKEN": "s.planted", "BAO_TOKEN": "s.planted", "BROKER_AUTH": "x", "PATH": os.environ["PATH"]}
    broker = Broker(resolve(flags={}, environment={}, file=file), environment)
    try:
        hooks = broker.notifying.hooks
        assert hooks.commands == {"promoted": [str(script), "a b"]}
        hooks.run(hooks.commands["promoted"], {"BROKER_ACCOUNT": "acme"})
    finally:
        broker.close()
    names = {line.partition("=")[0] for line in out.read_text().splitlines()}
    assert "planted" not in out.read_text()
    assert names <= {"PATH", "HOME", "LANG", "TZ", "BROKER_ACCOUNT", "PWD", "SHLVL", "_", "OLDPWD"}
