"""The embedded vault: killed at a write of your choice as it starts or stops, and started again, it is one."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from broker.embedded.server import status, stop
from tests.chaos.fault_results import keep
from tests.chaos.killing import Fault, Killable, Point, Ran, audited_paths, signalled
from tests.chaos.mount_snapshot import listing
from tests.support.counts import TALLY

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)
KILLS: Final = tuple(signalled(signal.SIGKILL, phase) for phase in ("before", "after"))
# The server writes these, or they hold what is written by then
CHANGING: Final = ("data", "bao.log", "bao.sock", "audit.log")


class Laptop:
    """A home in which an embedded vault may start."""

    def __init__(self, killable: Killable, home: Path) -> None:
        self._killable = killable
        self.home = home
        self.vault = home / ".local" / "state" / "credential-broker" / "vault"

    def run(self, *arguments: str, at: int = 0, fault: Fault | None = None) -> Ran:
        changes = {"HOME": str(self.home)}
        return self._killable.run(*arguments, cwd=self.home, changes=changes, at=at, fault=fault)

    def files(self) -> list[tuple[str, str, int]]:
        return [row for row in listing(self.vault) if not row[0].startswith(CHANGING)]


@pytest.fixture(scope="module")
def killable() -> Killable:
    return Killable({"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONWARNINGS": "error"})


@contextmanager
def laptop(killable: Killable) -> Iterator[Laptop]:
    with tempfile.TemporaryDirectory(prefix="broker-laptop-") as directory:
        made = Laptop(killable, Path(directory))
        try:
            yield made
        finally:
            stop(made.vault)


def assert_one_vault(there: Laptop, files: list[tuple[str, str, int]]) -> None:
    assert there.files() == files
    ended = there.run("vault", "status", "-o", "json").ended
    assert ended.code == 0, ended.err + ended.out
    planned = there.run("vault", "setup", "--dry-run", "-o", "json").ended
    assert {item["action"] for item in planned.json} == {"keep"}
    assert there.run("account", "list").code == 0


def survived(killable: Killable, point: Point, fault: Fault, files: list[tuple[str, str, int]]) -> int:
    """Start with `fault` at `point`, start again, stop and start: the vault of the second start is the third's."""
    with laptop(killable) as there:
        struck = there.run("vault", "start", at=point.number, fault=fault)
        again = there.run("vault", "start")
        assert again.code == 0, again.ended.err
        assert_one_vault(there, files)
        unseal = (there.vault / "unseal.key").read_bytes()
        assert there.run("vault", "stop").code == 0
        assert status(there.vault) is None
        third = there.run("vault", "start")
        assert third.code == 0, f"after a stop: {third.ended.err}"
        assert (there.vault / "unseal.key").read_bytes() == unseal
        assert_one_vault(there, files)
        return struck.code


def stopped(killable: Killable, point: Point, fault: Fault, files: list[tuple[str, str, int]]) -> int:
    """Stop with `fault` at `point`, stop again and start: it is the vault that it was."""
    with laptop(killable) as there:
        assert there.run("vault", "start").code == 0
        unseal = (there.vault / "unseal.key").read_bytes()
        struck = there.run("vault", "stop", at=point.number, fault=fault)
        again = there.run("vault", "stop")
        assert again.code == 0, again.ended.err
        assert status(there.vault) is None
        started = there.run("vault", "start")
        assert started.code == 0, started.ended.err
        assert (there.vault / "unseal.key").read_bytes() == unseal
        assert_one_vault(there, files)
        return struck.code


@pytest.fixture(scope="module")
def calm(killable: Killable) -> tuple[Ran, list[tuple[str, str, int]]]:
    """Writes of a start, and the files of a vault that started well."""
    with laptop(killable) as there:
        ran = there.run("vault", "start")
        assert ran.code == 0, ran.ended.err
        return ran, there.files()


@pytest.fixture(scope="module")
def calm_stop(killable: Killable) -> Ran:
    """Writes of a stop."""
    with laptop(killable) as there:
        assert there.run("vault", "start").code == 0
        ran = there.run("vault", "stop")
        assert ran.code == 0, ran.ended.err
        return ran


Act = Callable[[Killable, Point, Fault, list[tuple[str, str, int]]], int]


def strike(
    killable: Killable,
    calm: tuple[Ran, list[tuple[str, str, int]]],
    cells: list[tuple[Point, Fault]],
    act: Act = survived,
) -> list[int]:
    wrong, codes = [], []
    for point, fault in cells:
        try:
            codes.append(act(killable, point, fault, calm[1]))
        except AssertionError as error:
            wrong.append(f"{point} {fault}: {str(error)[:600]}")
        TALLY["kill points"] += 1
    assert not wrong, f"CHAOS_SEED={SEED}: {len(wrong)} of {len(cells)}\n" + "\n".join(wrong[:12])
    return codes


@pytest.mark.slow
def test_no_write_of_a_start_slips_by(killable: Killable) -> None:
    with laptop(killable) as there:
        ran = there.run("vault", "start", "--audit")
        assert len(ran.audited) == sum(point.kind in ("disk", "process") for point in ran.points)
        ours = [point.what.partition(" ")[2] for point in ran.points if point.kind == "vault"]
        logged = audited_paths(there.vault / "audit.log")
        assert sorted(ours) == sorted(logged[len(logged) - len(ours) :])  # before ours, it initialises itself


@pytest.mark.slow
def test_a_killed_start_can_be_started_again(killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]]) -> None:
    begun = next(p for p in calm[0].points if p.kind == "process")
    assert strike(killable, calm, [(begun, KILLS[1])]) == [-signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.deep
def test_a_start_killed_at_some_write_is_one(killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]]) -> None:
    points = calm[0].points
    begun = next(p for p in points if p.kind == "process")
    chosen = [points[begun.number], *random.Random(SEED).sample(points, 4)]
    assert set(strike(killable, calm, [(point, KILLS[1]) for point in chosen])) == {-signal.SIGKILL}


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_start_killed_everywhere(killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]]) -> None:
    codes = strike(killable, calm, [(p, f) for p in calm[0].points for f in KILLS])
    assert set(codes) == {-signal.SIGKILL}
    keep("vault start", "SIGKILL", codes, writes=calm[0].counts)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_asked_to_end_everywhere(
    killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]], number: signal.Signals
) -> None:
    codes = strike(killable, calm, [(p, signalled(number, "before")) for p in calm[0].points])
    assert set(codes) == {128 + number}
    keep("vault start", number.name, codes)


@pytest.mark.slow
def test_killed_stop_can_be_repeated(
    killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]], calm_stop: Ran
) -> None:
    point = random.Random(SEED).choice(calm_stop.points)
    assert strike(killable, calm, [(point, KILLS[1])], stopped) == [-signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.chaos
def test_a_stop_killed_everywhere(
    killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]], calm_stop: Ran
) -> None:
    assert calm_stop.points
    assert len(calm_stop.audited) == sum(point.kind in ("disk", "process") for point in calm_stop.points)
    codes = strike(killable, calm, [(p, f) for p in calm_stop.points for f in KILLS], stopped)
    assert set(codes) == {-signal.SIGKILL}
    keep("vault stop", "SIGKILL", codes, writes=calm_stop.counts)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_asked_to_end_everywhere(
    killable: Killable, calm: tuple[Ran, list[tuple[str, str, int]]], calm_stop: Ran, number: signal.Signals
) -> None:
    codes = strike(killable, calm, [(p, signalled(number, "before")) for p in calm_stop.points], stopped)
    assert set(codes) == {128 + number}
    keep("vault stop", number.name, codes)
