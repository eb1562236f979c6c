"""Reuse of a published bundle: one process fetches it, the others read its files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.copies import replace
from broker.delivery import reuse
from broker.delivery.directory import CURRENT
from broker.delivery.formats import FileFormat
from broker.delivery.restoring import Published, published
from broker.delivery.reuse import is_fresh, shared
from broker.delivery.root import UnusableDirectoryError
from broker.errors import ConflictError
from broker.model.bundle import Wanted
from broker.model.names import AccountName
from tests.support.credential_sets import NOW, paper, publish

MARK = "0" * 64
HOUR = timedelta(hours=1)


class Fetches:
    """Publishes a bundle each time, and counts."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def __call__(self) -> None:
        self.count += 1
        publish(self.root, replace(paper(), lease_id=f"{self.count:032x}"))

    def get(self, mark: str = MARK) -> Published:
        return shared(self.root, mark, lambda _: True, self)


@pytest.fixture
def fetches(tmp_path: Path) -> Fetches:
    return Fetches(tmp_path / "root")


def test_second_one_makes_no_call(fetches: Fetches) -> None:
    first = fetches.get()
    assert fetches.get().manifest == first.manifest
    assert fetches.count == 1
    assert (fetches.root / "fetched").stat().st_mode & 0o777 == 0o600


def test_another_origin_is_not_answered(fetches: Fetches) -> None:
    for mark in (MARK, "1" * 64, MARK, "", ""):
        fetches.get(mark)
    assert fetches.count == 5


def test_files_of_another_publisher_are_not_used(fetches: Fetches) -> None:
    fetches.get()
    publish(fetches.root, replace(paper(), lease_id="f" * 32))
    assert fetches.get().manifest.lease_id != "f" * 32
    assert fetches.count == 2


@pytest.mark.parametrize(
    "harm",
    [
        lambda root: (root / CURRENT / "tls.key").write_text("another"),
        lambda root: (root / CURRENT / "password").write_text(""),
        lambda root: (root / CURRENT / "ca.crt").unlink(),
        lambda root: (root / CURRENT / "manifest.json").write_text("{"),
        lambda root: (root / CURRENT).unlink(),
        lambda root: (root / "fetched").write_text(f"{1:032x} "),
        lambda root: (root / "fetched").write_bytes(b"\xff" * 100),
        lambda root: (root / "fetched").unlink(),
    ],
)
def test_damage_is_fetched_again(fetches: Fetches, harm: Callable[[Path], object]) -> None:
    fetches.get()
    harm(fetches.root)
    assert fetches.get().files == published(fetches.root).files  # type: ignore[union-attr]
    assert fetches.count == 2
    fetches.get()
    assert fetches.count == 2


def test_killed_process_gives_its_turn_up(fetches: Fetches) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        shared(fetches.root, MARK, lambda _: True, lambda: os.write(writing, b"x") and signal.sigwait([signal.SIGUSR1]))
    os.read(reading, 1)  # it has its turn
    os.kill(child, signal.SIGKILL)
    fetches.get()
    assert fetches.count == 1
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


def test_stopped_process_stops_no_other(fetches: Fetches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "_PATIENCE", 0.05)
    shared(fetches.root, MARK, lambda _: True, fetches.get)
    assert fetches.count == 1


def test_removed_files_are_an_error(fetches: Fetches) -> None:
    with pytest.raises(ConflictError, match="removed immediately"):
        shared(fetches.root, MARK, lambda _: True, lambda: None)


def test_full_disk_only_forgets(fetches: Fetches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "_NOTE", "/dev/full")
    assert fetches.get().files
    assert fetches.get().files
    assert fetches.count == 2


def test_link_in_place_of_the_lock(fetches: Fetches, tmp_path: Path) -> None:
    fetches()
    (fetches.root / "fetched").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnusableDirectoryError):
        fetches.get()


@pytest.mark.parametrize(
    ("left", "ttl", "expected"),
    [
        (HOUR, HOUR, True),
        (HOUR / 2, HOUR, True),
        (HOUR / 2 - timedelta(seconds=1), HOUR, False),
        (HOUR, 100 * HOUR, True),
        (HOUR, HOUR / 4, False),
        (HOUR + timedelta(seconds=1), HOUR, False),  # the clock was set back
        (-HOUR, HOUR, False),
    ],
)
def test_half_of_the_term_must_be_left(left: timedelta, ttl: timedelta, expected: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish(root, replace(paper(), expires=NOW + left))
    found = published(root)
    assert found
    wanted = Wanted(found.manifest.account, found.manifest.application, ttl)
    assert is_fresh(found.manifest, wanted, (), NOW) is expected
    assert not is_fresh(found.manifest, replace(wanted, account=AccountName("other")), (), NOW)
    assert not is_fresh(found.manifest, wanted, [FileFormat.CURL], NOW)
