"""Killed at a write of your choice and run again, a command ends as if nothing had happened.

Every write is a point (`tests.chaos.points`): those to Vault are compared with Vault's own audit log, those to disk
with Python's audit events, and where a command writes with the catalogue. A sample runs in every `make test`; `make
chaos` goes through all. CHAOS_SEED says which points the sample takes.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tests.chaos.fault_results import keep
from tests.chaos.kill_harness import COMMANDS, READS, Calm, Ground, named
from tests.chaos.killing import Fault, Point, Ran, audited_writes, signalled
from tests.support.catalogue import CASES, Case
from tests.support.console import commands
from tests.support.counts import TALLY
from tests.support.depth import sampled

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)
BY_NAME: Final = {command.name: command for command in COMMANDS}
KILLS: Final = tuple(signalled(signal.SIGKILL, phase) for phase in ("before", "after"))
NOTE: Final = "open fetched"  # of `bundle get -o json`, which goes on if that cannot be written
WHOLLY: Final = ("csr new", "cert import", "password set")
SAMPLED: Final = (
    "account add",
    "account import",
    "rotation promote",
    "bundle get",
    "csr submit",
    "csr new --supersede",
    "rotation rollback",
    "vault enrol",
)
PASSING: Final = (
    "login",
    "revoke-self",
    "sys/capabilities",
    "sys/capabilities-self",
    "token/lookup",
    "secret-id/lookup",
)  # not the broker's data
Act = Callable[[Ground, Case, Calm, Point, Fault], Ran]


def strike(act: Act, field: Ground, command: Case, calm: Calm, cells: Sequence[tuple[Point, Fault]]) -> list[int]:
    """Let `act` try every cell; fail with all that went wrong. Return how the struck runs ended."""
    wrong, codes = [], []
    for point, fault in cells:
        try:
            codes.append(act(field, command, calm, point, fault).code)
        except AssertionError as error:
            wrong.append(f"{point} {fault}: {str(error)[:800]}")
        TALLY["kill points"] += 1
    assert not wrong, f"CHAOS_SEED={SEED} {command.name}: {len(wrong)} of {len(cells)}\n" + "\n".join(wrong[:12])
    return codes


def test_the_catalogue_has_every_command() -> None:
    assert {case.command for case in CASES} == {name for name, _ in commands()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(BY_NAME, every=4))
def test_no_write_slips_by(field: Ground, calm: Callable[[Case], Calm], name: str) -> None:
    found = calm(BY_NAME[name])
    ran = found.ran
    to_vault = [point.what.partition(" ")[2] for point in ran.points if point.kind == "vault"]
    assert Counter(to_vault) == Counter(found.vault), "Vault's audit log tells of other writes"
    assert len(ran.audited) == sum(point.kind in ("disk", "process") for point in ran.points), ran.audited
    before = [path for phase, path in ran.observed if phase == "before"]
    unseen = Counter(to_vault) - Counter(before)
    assert all(path.endswith(PASSING) for path in unseen), f"past the one place of writes: {unseen}"
    kinds = {point.kind for point in ran.points if not point.what.endswith(PASSING)}
    assert kinds - {"process"} == set(BY_NAME[name].writes.split()), "it writes elsewhere than the catalogue says"


@pytest.mark.slow
@pytest.mark.parametrize("command", [pytest.param(case, id=case.name) for case in READS])
def test_what_only_reads_writes_nothing(field: Ground, command: Case) -> None:
    field.begin(command)
    with audited_writes(field.log) as vault:
        ran = field.run(command)
    assert ran.code in (0, 6), ran.ended.err  # 6: doctor finds something
    assert not ran.audited
    assert not [path for path in vault if not path.endswith(PASSING)]
    assert not [point for point in ran.points if not point.what.endswith(PASSING)]


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(WHOLLY, every=3))
def test_killed_at_every_write_ends_the_same(field: Ground, calm: Callable[[Case], Calm], name: str) -> None:
    found = calm(BY_NAME[name])
    codes = strike(Ground.killed, field, BY_NAME[name], found, [(p, f) for p in found.ran.points for f in KILLS])
    assert set(codes) == {-signal.SIGKILL}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(SAMPLED, every=3))
def test_killed_at_some_write_ends_the_same(field: Ground, calm: Callable[[Case], Calm], name: str) -> None:
    found = calm(BY_NAME[name])
    cells = random.Random(f"{SEED} {name}").sample([(p, f) for p in found.ran.points for f in KILLS], 4)
    assert set(strike(Ground.killed, field, BY_NAME[name], found, cells)) == {-signal.SIGKILL}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(["bundle get", "csr submit", "rotation promote"], every=3))
def test_signal_leaves_nothing_partial(field: Ground, calm: Callable[[Case], Calm], name: str) -> None:
    found = calm(BY_NAME[name])
    rng = random.Random(f"{SEED} {name}")
    faults = [signalled(rng.choice([signal.SIGTERM, signal.SIGINT]), rng.choice(["before", "after"])) for _ in range(5)]
    strike(Ground.interrupted, field, BY_NAME[name], found, [(rng.choice(found.ran.points), f) for f in faults])


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", named(COMMANDS))
def test_killed_everywhere(field: Ground, calm: Callable[[Case], Calm], name: str) -> None:
    found = calm(BY_NAME[name])
    codes = strike(Ground.killed, field, BY_NAME[name], found, [(p, f) for p in found.ran.points for f in KILLS])
    assert set(codes) == {-signal.SIGKILL}
    keep(name, "SIGKILL", codes, writes=found.ran.counts)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", named(COMMANDS))
def test_killed_in_the_middle_of_a_file(field: Ground, calm: Callable[[Case], Calm], name: str) -> None:
    """The kernel ends the process within a write(2), and half the content is there."""
    found = calm(BY_NAME[name])
    disk = [point for point in found.ran.points if point.kind == "disk"]
    opened = [point for point in disk if point.what.startswith("open") and point.what != NOTE]
    codes = strike(
        Ground.killed, field, BY_NAME[name], found, [(p, {"room": 3, "deadly": True, "phase": "after"}) for p in opened]
    )
    if opened:
        assert set(codes) == {-signal.SIGXFSZ}
        keep(name, "killed within a write(2)", codes)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", named(COMMANDS))
def test_asked_to_end_everywhere(
    field: Ground, calm: Callable[[Case], Calm], name: str, number: signal.Signals
) -> None:
    found = calm(BY_NAME[name])
    # Both go the same way, so each write meets one of them before it and the other after it; which, the seed turns
    sides = [(p, n, phase) for p in found.ran.points for n, phase in enumerate(("before", "after"))]
    cells = [(p, signalled(number, phase)) for p, n, phase in sides if (p.number + n + SEED + number) % 2]
    keep(name, number.name, strike(Ground.interrupted, field, BY_NAME[name], found, cells))
