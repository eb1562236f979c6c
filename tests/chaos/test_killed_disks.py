"""A disk that is full, read-only or gone: the command tells, publishes nothing half, and can be run again."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.fault_results import keep
from tests.chaos.kill_harness import COMMANDS, Calm, Ground, named
from tests.chaos.killing import Fault, Point
from tests.support.catalogue import Case, filled
from tests.support.counts import TALLY
from tests.support.depth import sampled

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)
BY_NAME: Final = {command.name: command for command in COMMANDS if "disk" in command.writes}
MOUNTED: Final = ("csr new --out", "bundle get")  # make chaos takes all
TROUBLES: Final[dict[str, Fault]] = {
    "no space": {"errno": errno.ENOSPC},
    "read-only": {"errno": errno.EROFS},
    "input/output error": {"errno": errno.EIO},
    "no room for the content": {"room": 3, "deadly": False, "phase": "after"},  # a write(2) that fails half-way
    "directory gone": {"vanish": ""},
}


@pytest.fixture
def disk(field: Ground) -> Iterator[Path]:
    """A file system of 256 KiB, on which commands run."""
    before = field.here
    with tempfile.TemporaryDirectory(prefix="broker-disk-") as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", directory], check=True)
        field.here = Path(directory) / "here"
        try:
            yield Path(directory)
        finally:
            field.here = before
            subprocess.run(["umount", "-l", directory], check=False, capture_output=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        assert not shutil.disk_usage(disk).free
    yield
    filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def cells(calm: Calm, fault: Fault) -> list[Point]:
    """Return the writes that `fault` can hit."""
    written = [point for point in calm.ran.points if point.kind == "disk"]
    return [point for point in written if point.what.startswith("open")] if "room" in fault else written


def strike(field: Ground, command: Case, calm: Calm, trouble: str, points: list[Point]) -> list[int]:
    wrong, codes = [], []
    place = field.here / "bundle" if command.name.startswith("bundle") else field.here
    fault = {"vanish": str(place)} if "vanish" in TROUBLES[trouble] else TROUBLES[trouble]
    for point in points:
        try:
            codes.append(field.failed(command, calm, point, fault).code)
        except AssertionError as error:
            wrong.append(f"{point}: {str(error)[:800]}")
        TALLY["writes to disk that failed"] += 1
    assert not wrong, f"CHAOS_SEED={SEED} {command.name}, {trouble}: {len(wrong)}\n" + "\n".join(wrong[:10])
    return codes


def spoilt(field: Ground, disk: Path, command: Case, spoil: Callable[[Path], AbstractContextManager[None]]) -> int:
    """Run `command` where the disk takes nothing, then where it does again; return how the first ended."""
    found = field.calm(command)
    field.begin(command)
    with spoil(disk):
        struck = field.run(command)
        assert struck.code == (9 if spoil is full else 2), f"{struck.code} {struck.ended.err}"
        field.assert_reported(struck)
        field.assert_nothing_half()
    field.again(command, found)
    TALLY["writes to disk that failed"] += 1
    return struck.code


@pytest.mark.slow
@pytest.mark.parametrize(("name", "trouble"), sampled(product(("csr submit", "bundle get"), TROUBLES), every=3))
def test_failed_write_leaves_nothing_partial(
    field: Ground, calm: Callable[[Case], Calm], name: str, trouble: str
) -> None:
    found = calm(BY_NAME[name])
    possible = cells(found, TROUBLES[trouble])
    points = random.Random(f"{SEED} {name} {trouble}").sample(possible, min(3, len(possible)))
    strike(field, BY_NAME[name], found, trouble, points)


@pytest.mark.peer("mount")
@pytest.mark.rights("mount")
@pytest.mark.slow
@pytest.mark.parametrize("spoil", [full, read_only])
@pytest.mark.parametrize("name", MOUNTED)
def test_a_disk_that_takes_nothing(
    field: Ground, disk: Path, name: str, spoil: Callable[[Path], AbstractContextManager[None]]
) -> None:
    spoilt(field, disk, BY_NAME[name], spoil)


@pytest.mark.peer("mount")
@pytest.mark.rights("mount")
@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("spoil", [full, read_only])
@pytest.mark.parametrize("name", named(BY_NAME.values()))
def test_full_disk_leaves_nothing_partial(
    field: Ground, disk: Path, name: str, spoil: Callable[[Path], AbstractContextManager[None]]
) -> None:
    code = spoilt(field, disk, BY_NAME[name], spoil)
    keep(name, f"a {spoil.__name__.replace('_', '-')} disk", [code])


@pytest.mark.peer("mount")
@pytest.mark.rights("mount")
@pytest.mark.slow
def test_unmounted_bundle_file_system(field: Ground, disk: Path) -> None:
    """The files are gone with it: the holder ends well, gives back what it had, and a new one can be had."""
    command = BY_NAME["bundle get --hold"]
    field.begin(command)
    words = filled(command.line.replace("1s", "1h"), field.facts)
    holder = subprocess.Popen(
        field.system.command(*words), cwd=field.here, env=field.system.environment, stderr=subprocess.PIPE
    )
    with holder:
        until = time.monotonic() + 60
        while not (field.here / "bundle" / "current" / "tls.key").exists() and time.monotonic() < until:
            time.sleep(0.05)
        subprocess.run(["umount", "-l", disk], check=True)
        holder.send_signal(signal.SIGTERM)
        _, err = holder.communicate(timeout=60)
    assert holder.returncode == 0, err.decode()
    admin = field.system.vault.admin
    assert not any(admin.read(f"consumers/{name}").data["value"]["holdings"] for name in admin.list("consumers"))
    field.here.mkdir()
    assert field.run(BY_NAME["bundle get"]).code == 0
    assert (field.here / "bundle" / "current" / "tls.key").is_file()


@pytest.mark.slow
def test_removed_bundle_is_published_again(field: Ground, calm: Callable[[Case], Calm]) -> None:
    command = BY_NAME["bundle get (again)"]
    found = calm(command)
    field.begin(command)
    shutil.rmtree(field.here / "bundle")
    field.again(command, found)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("name", named(BY_NAME.values()))
def test_every_write_to_disk_may_fail(field: Ground, calm: Callable[[Case], Calm], name: str, trouble: str) -> None:
    found = calm(BY_NAME[name])
    codes = strike(field, BY_NAME[name], found, trouble, cells(found, TROUBLES[trouble]))
    keep(name, trouble, codes)
