"""Publishing: atomic, one generation or another, and only to a directory that can be trusted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.copies import replace
from broker.delivery.directory import CURRENT, GRACE, publishing
from broker.delivery.formats import DEFAULT, MANIFEST, FileFormat, parse
from broker.delivery.root import LeftBehindError, Root, UnusableDirectoryError, held
from broker.errors import BrokerError, InputError, RefusedError, StorageFullError
from broker.model.bundle import Bundle
from broker.model.clock import system_clock
from broker.model.names import AccountName
from broker.model.secret import Secret
from tests.support.credential_sets import LEASE, NOW, PASSWORD, paper, publish, withdraw

ALL = tuple(FileFormat)
STORES = (FileFormat.KEYSTORE, FileFormat.TRUSTSTORE)


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


def assert_no_trace(root: Path) -> None:
    assert [p.name for p in root.iterdir() if p.name.startswith(".")] == []


def test_bundle_is_a_directory_and_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    found = publish(root, paper())
    assert found == root / "gen-000007"
    assert str((root / CURRENT).readlink()) == "gen-000007"
    assert {p.name for p in found.iterdir()} == {MANIFEST, *(f.value for f in DEFAULT)}
    assert (found / "password").read_text() == PASSWORD
    assert_no_trace(root)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        found = publish(tmp_path / "root", paper(), [FileFormat.CURL])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in found.iterdir()} == {0o600}


def test_publishing_again_sets_the_modes(tmp_path: Path) -> None:
    found = publish(tmp_path / "root", paper())
    (found / "password").chmod(0o644)
    publish(tmp_path / "root", paper())
    assert stat.S_IMODE((found / "password").stat().st_mode) == 0o600


def test_manifest_has_no_password_digest(tmp_path: Path) -> None:
    found = publish(tmp_path / "root", paper(), ALL)
    manifest = parse((found / MANIFEST).read_bytes())
    assert set(manifest.files) == {f.value for f in ALL}
    for name, digest in manifest.files.items():
        assert digest in ("", hashlib.sha256((found / name).read_bytes()).hexdigest())
    assert {n for n, digest in manifest.files.items() if not digest} == {"password", "secrets.json", "curl.conf", "env"}
    assert (manifest.lease_id, manifest.expires) == ("lease-0001", NOW + timedelta(hours=1))
    text = (found / MANIFEST).read_text()
    assert json.loads(text)["not_after"].endswith("Z")
    assert hashlib.sha256(PASSWORD.encode()).hexdigest() not in text
    assert PASSWORD not in text


def test_renewal_changes_only_the_manifest(tmp_path: Path) -> None:
    first = publish(tmp_path / "root", paper(), STORES)
    before = contents(first)
    renewed = replace(paper(), lease_id="lease-0002", expires=NOW + timedelta(hours=2))
    assert publish(tmp_path / "root", renewed, STORES) == first
    after = contents(first)
    assert {n for n in after if after[n] != before[n]} == {MANIFEST}
    assert parse(after[MANIFEST]).lease_id == "lease-0002"


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: (d / "tls.key").write_text("harmed"),
        lambda d: (d / "tls.crt").unlink(),
        lambda d: (d / "keystore.p12").write_bytes(b"harmed"),
        lambda d: (d / MANIFEST).write_text("{"),
        lambda d: (d / "more").write_text("a stranger's"),
        lambda d: ((d / "ca.crt").unlink(), (d / "ca.crt").symlink_to("/etc/hosts")),
        lambda d: ((d / "ca.crt").unlink(), (d / "ca.crt").mkdir()),
        lambda d: ((d / "ca.crt").rename(d.parent / "same"), (d / "ca.crt").symlink_to("../same")),
    ],
)
def test_damaged_generation_is_not_reused(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    first = publish(tmp_path / "root", paper(), STORES)
    harm(first)
    second = publish(tmp_path / "root", paper(), STORES)
    assert second.name == "gen-000007-2"
    assert (tmp_path / "root" / CURRENT).readlink().name == second.name


def test_other_client_id_has_its_directory(tmp_path: Path) -> None:
    publish(tmp_path / "root", paper())
    second = publish(tmp_path / "root", paper(client_id="another"))
    assert second.name == "gen-000007-2"
    assert (second / "client_id").read_text() == "another"


def test_displaced_generation_has_a_grace(tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish(root, paper(), clock=at(NOW))
    publish(root, paper(generation=8), clock=at(NOW + timedelta(days=3)))
    assert (root / "gen-000007").exists()
    publish(root, paper(generation=8), clock=at(NOW + timedelta(days=3) + GRACE))
    assert (root / "gen-000007").exists()
    publish(root, paper(generation=8), clock=at(NOW + timedelta(days=3, seconds=1) + GRACE))
    assert [p.name for p in sorted(root.iterdir())] == [CURRENT, "gen-000008"]


def test_unclosable_file_has_no_second_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there, but cannot be closed to others, is no reason to publish the generation again beside it."""
    root = tmp_path / "root"
    (publish(root, paper()) / "password").chmod(0o644)

    chmod = os.fchmod

    def fails(descriptor: int, mode: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "password":
            raise OSError(errno.EROFS, "read-only")
        chmod(descriptor, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fchmod", fails)
        with pytest.raises(UnusableDirectoryError):
            publish(root, paper())
    assert [p.name for p in root.glob("gen-*")] == ["gen-000007"]


def test_rollback_points_at_the_older_one(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for generation in (7, 8, 7):
        publish(root, paper(generation=generation), clock=at(NOW))
    assert str((root / CURRENT).readlink()) == "gen-000007"
    publish(root, paper(generation=7), clock=at(NOW + timedelta(days=1)))
    assert not (root / "gen-000008").exists()


def test_other_application_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "root", paper())
    for other in (replace(paper(), application="other"), replace(paper(), account=AccountName("mzp-2"))):
        with pytest.raises(RefusedError, match="holds the bundle of mzp-1/reports"):
            publish(tmp_path / "root", other)


def a_link(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    return tmp_path / "root"


def a_file(tmp_path: Path) -> Path:
    (tmp_path / "root").write_text("")
    return tmp_path / "root"


def open_to_all(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root").chmod(0o777)
    return tmp_path / "root"


def open_to_a_group(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root").chmod(0o770)
    return tmp_path / "root"


def below_what_is_open(tmp_path: Path) -> Path:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    return tmp_path / "open" / "root"


def below_nothing(_: Path) -> Path:
    return Path("/proc/none/root")


def another_owners(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir(mode=0o700)
    os.chown(tmp_path / "root", 65534, -1)
    return tmp_path / "root"


def current_is_a_file(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root" / CURRENT).write_text("a stranger's")
    return tmp_path / "root"


def current_is_a_directory(tmp_path: Path) -> Path:
    (tmp_path / "root" / CURRENT).mkdir(parents=True)
    (tmp_path / "root").chmod(0o700)
    return tmp_path / "root"


@pytest.mark.parametrize(
    "make",
    [
        a_link,
        a_file,
        open_to_all,
        open_to_a_group,
        below_what_is_open,
        below_nothing,
        pytest.param(another_owners, marks=pytest.mark.rights("chown")),
        current_is_a_file,
        current_is_a_directory,
    ],
)
def test_untrusted_directory_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    root = make(tmp_path)
    with pytest.raises(UnusableDirectoryError) as caught:
        publish(root, paper())
    assert caught.value.hint
    assert all(Path(word).exists() for word in caught.value.hint.split() if word.startswith("/"))
    assert PASSWORD not in str(caught.value)
    assert not any(p.name == "password" for p in tmp_path.rglob("*"))


def test_link_with_our_name_is_not_followed(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    victim.mkdir()
    (victim / "password").write_text("a stranger's")
    root.mkdir(mode=0o700)
    (root / ".gen-000007").symlink_to(victim)
    (root / "gen-000007").symlink_to(victim)
    with pytest.raises(BrokerError):
        publish(root, paper())
    withdraw(root, LEASE)
    assert contents(victim) == {"password": b"a stranger's"}


def test_full_disk_publishes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish(root, paper())
    before = contents(root / "gen-000007")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a key has more bytes than that
    try:
        with pytest.raises(StorageFullError, match="no space left"):
            publish(root, paper(generation=8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in sorted(root.iterdir())] == [CURRENT, "gen-000007"]
    assert contents(root / CURRENT) == before


def test_full_disk_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = publish(tmp_path / "root", paper())
    before = contents(found)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError, match="no space left"):
        publish(tmp_path / "root", of_another_lease())
    assert contents(found) == before


def test_files_are_synced_before_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    pointed: list[int] = []
    fsync, symlink = os.fsync, os.symlink

    def counting(fd: int) -> None:
        synced.append((os.fstat(fd).st_ino, os.fstat(fd).st_size))
        fsync(fd)

    def pointing(*args: Any, **kwargs: Any) -> None:
        pointed.append(len(synced))
        symlink(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", counting)
    monkeypatch.setattr(os, "symlink", pointing)
    found = publish(tmp_path / "root", paper())
    before = set(synced[: pointed[0]])
    assert {(p.stat().st_ino, p.stat().st_size) for p in found.iterdir()} <= before
    assert {found.stat().st_ino, (tmp_path / "root").stat().st_ino} <= {inode for inode, _ in before}


def _after_renaming(monkeypatch: pytest.MonkeyPatch, report: Callable[[str], object]) -> None:
    """Call `report` with each new name, after the rename."""
    rename = os.rename

    def renaming(source: Any, target: Any, **where: Any) -> None:
        rename(source, target, **where)
        report(target)

    monkeypatch.setattr(os, "rename", renaming)


def test_switch_itself_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str | int] = []
    fsync = os.fsync

    def syncing(fd: int) -> None:
        fsync(fd)
        done.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", syncing)
    _after_renaming(monkeypatch, done.append)
    publish(tmp_path / "root", paper())
    assert (tmp_path / "root").stat().st_ino in done[done.index(CURRENT) :]


def test_generation_gets_its_name_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    _after_renaming(monkeypatch, lambda _: found.extend(len(contents(d)) for d in tmp_path.glob("root/gen-*")))
    publish(tmp_path / "root", paper())
    assert set(found) == {len(DEFAULT) + 1}


def test_leftovers_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish(root, paper())
    (root / ".gen-000008").mkdir()
    (root / ".gen-000008" / ".tls.key").write_text("half")
    (root / ".gen-000008" / "tls.key").write_text("whole")
    (root / ".current-4711").symlink_to("gen-000008")
    publish(root, paper(generation=8))
    assert_no_trace(root)
    assert set(contents(root / CURRENT)) == {MANIFEST, *(f.value for f in DEFAULT)}


@pytest.mark.slow
def test_kill_leaves_current_whole(tmp_path: Path) -> None:
    """Each system call that changes something is a place to die: after each, `current` is one whole generation."""
    root = tmp_path / "root"
    publish(root, paper())
    died, place = True, 0
    while died:
        place += 1
        died = os.waitstatus_to_exitcode(_publish_and_die(root, place)) != 0
        found = contents(root / CURRENT)
        manifest = parse(found[MANIFEST])
        assert {n for n in found if n != MANIFEST and not n.startswith(".")} == set(manifest.files)
        for name, digest in manifest.files.items():
            assert digest in ("", hashlib.sha256(found[name]).hexdigest())
        publish(root, paper())
        assert_no_trace(root)
        withdraw(root, LEASE)
        publish(root, paper())
    assert place > 30


def _publish_and_die(root: Path, place: int) -> int:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = place

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            nonlocal left
            left -= 1
            if not left:
                os._exit(1)
            return call(*args, **kwargs)

        return wrapped

    for name in ("open", "mkdir", "rename", "symlink", "unlink", "rmdir", "fsync", "fchmod", "utime"):
        setattr(os, name, dying(getattr(os, name)))
    publish(root, paper(generation=8))
    os._exit(0)


@pytest.mark.slow
def test_several_publishers_take_turns(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bundles = [paper(generation=n) for n in (7, 8, 9)]
    failures: list[BaseException] = []

    def run(turn: int) -> None:
        try:
            for n in range(5):
                publish(root, bundles[(turn + n) % 3])
        except BaseException as error:  # noqa: BLE001  # asserted below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(turn,)) for turn in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert parse((root / CURRENT / MANIFEST).read_bytes()).generation in (7, 8, 9)
    assert_no_trace(root)


def test_replaced_directory_is_reopened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish(root, paper())
    waiting = threading.Thread(target=publish, args=(root, paper(generation=8)))
    with held(root):
        waiting.start()
        waiting.join(0.1)
        root.rename(tmp_path / "away")
        root.mkdir(mode=0o700, exist_ok=True)
    waiting.join()
    assert (root / CURRENT).readlink().name == "gen-000008"
    assert (tmp_path / "away" / CURRENT).readlink().name == "gen-000007"


@pytest.mark.slow
def test_reader_never_sees_two_generations(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bundles = [paper(generation=7, password="seven"), paper(generation=8, password="eight", number=2)]
    publish(root, bundles[0])
    mixed, reads, turns, done = 0, 0, 0, threading.Event()

    def write() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            publish(root, bundles[turns % 2])

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive() and min(turns, reads) < 30:
        directory = root / str((root / CURRENT).readlink())
        manifest = parse((directory / MANIFEST).read_bytes())
        password = (directory / "password").read_text()
        mixed += password != {7: "seven", 8: "eight"}[manifest.generation]
        reads += 1
    done.set()
    writer.join()
    assert (mixed, reads >= 30) == (0, True)


def test_withdraw_removes_only_ours(tmp_path: Path) -> None:
    root = tmp_path / "root"
    publish(root, paper(), ALL)
    publish(root, paper(generation=8))
    (root / ".gen-000009").mkdir()
    (root / ".gen-000009" / "tls.key").write_text("half")
    (root / "notes").write_text("a stranger's")
    (root / "gen-x").mkdir()
    assert withdraw(root, LEASE) == ()
    assert [p.name for p in sorted(root.iterdir())] == ["gen-x", "notes"]
    assert withdraw(root, LEASE) == ()


def test_withdraw_reports_foreign_files(tmp_path: Path) -> None:
    found = publish(tmp_path / "root", paper())
    (found / "mine").write_text("a stranger's")
    assert withdraw(tmp_path / "root", LEASE) == (found,)
    assert [p.name for p in found.iterdir()] == ["mine"]


def test_withdraw_leaves_a_foreign_link(tmp_path: Path) -> None:
    publish(tmp_path / "root", paper())
    (tmp_path / "root" / CURRENT).unlink()
    (tmp_path / "root" / CURRENT).symlink_to("elsewhere")
    assert withdraw(tmp_path / "root", LEASE) == ()
    assert [p.name for p in (tmp_path / "root").iterdir()] == [CURRENT]


def test_withdraw_follows_no_link(tmp_path: Path) -> None:
    publish(tmp_path / "real", paper())
    (tmp_path / "root").symlink_to(tmp_path / "real")
    with pytest.raises(UnusableDirectoryError):
        withdraw(tmp_path / "root", LEASE)
    assert (tmp_path / "real" / CURRENT / "tls.key").exists()


def of_another_lease(generation: int = 7) -> Bundle:
    return replace(paper(generation=generation), lease_id="lease-0002")


@pytest.mark.parametrize("generation", [7, 8])
def test_withdraw_leaves_successors_files(tmp_path: Path, generation: int) -> None:
    root = tmp_path / "root"
    publish(root, paper())
    successors = publish(root, of_another_lease(generation))
    assert withdraw(root, LEASE) == (successors,)
    assert [p.name for p in sorted(root.iterdir())] == [CURRENT, successors.name]
    assert set(contents(root / CURRENT)) == {MANIFEST, *(f.value for f in DEFAULT)}
    assert withdraw(root, "lease-0002") == ()
    assert list(root.iterdir()) == []


def keys_below(place: Path) -> list[Path]:
    return sorted(place.rglob("tls.key"))


def whole_directory(tmp_path: Path) -> None:
    (tmp_path / "root").rename(tmp_path / "away")
    publish(tmp_path / "root", of_another_lease())
    (tmp_path / "root").rename(tmp_path / "successor")


def generation_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "root" / "gen-000007").rename(tmp_path / "away")


def generation_in_it(tmp_path: Path) -> None:
    (tmp_path / "root" / "gen-000007").rename(tmp_path / "root" / "kept")


@pytest.mark.parametrize("move", [whole_directory, generation_out_of_it, generation_in_it])
def test_withdraw_finds_renamed_directories(tmp_path: Path, move: Callable[[Path], None]) -> None:
    with publishing(tmp_path / "root", paper(), (), system_clock) as holding:
        move(tmp_path)
        assert holding.withdraw() == ()
    assert [p for p in keys_below(tmp_path) if "successor" not in p.parts] == []
    assert len(keys_below(tmp_path / "successor")) == (move is whole_directory)


def one_file(tmp_path: Path) -> None:
    (tmp_path / "root" / "gen-000007" / "tls.key").rename(tmp_path / "tls.key")


def a_generation(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "root" / "gen-000007")


def all_of_it(tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "root", tmp_path / "away", symlinks=True)
    shutil.rmtree(tmp_path / "root")


@pytest.mark.parametrize("take", [one_file, a_generation, all_of_it])
def test_withdraw_reports_missing_files(tmp_path: Path, take: Callable[[Path], None]) -> None:
    with publishing(tmp_path / "root", paper(), (), system_clock) as holding:
        take(tmp_path)
        with pytest.raises(LeftBehindError, match=r"tls\.key.* cannot be found"):
            holding.withdraw()
    assert not list((tmp_path / "root").rglob("password"))


def test_withdraw_if_current_is_not_a_link(tmp_path: Path) -> None:
    with publishing(tmp_path / "root", paper(), (), system_clock) as holding:
        (tmp_path / "root" / CURRENT).unlink()
        (tmp_path / "root" / CURRENT).write_text("a stranger's")
        with pytest.raises(UnusableDirectoryError, match="not a link"):
            holding.withdraw()
    assert keys_below(tmp_path) == []


def test_withdraw_after_displacement(tmp_path: Path) -> None:
    with publishing(tmp_path / "root", paper(), (), system_clock) as holding:
        publish(tmp_path / "root", of_another_lease(8), grace=-GRACE)
        assert not (tmp_path / "root" / "gen-000007").exists()
        assert holding.withdraw() == (tmp_path / "root" / "gen-000008",)
    assert len(keys_below(tmp_path)) == 1


def test_withdraw_leaves_a_moved_successor(tmp_path: Path) -> None:
    with publishing(tmp_path / "root", paper(), (), system_clock) as holding:
        publish(tmp_path / "root", of_another_lease())
        (tmp_path / "root" / "gen-000007").rename(tmp_path / "away")
        assert holding.withdraw() == ()
    assert len(keys_below(tmp_path / "away")) == 1


def test_unremovable_leftover_blocks_nothing(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    (root / "gen-000001" / "tls.key").mkdir(parents=True)
    (root / "gen-000001" / "password").write_text("old")
    root.chmod(0o700)
    os.utime(root / "gen-000001", (1, 1))
    publish(root, paper())
    assert [p.name for p in (root / "gen-000001").iterdir()] == ["tls.key"]
    assert withdraw(root, LEASE) == (root / "gen-000001",)


def test_failed_removal_spares_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    publish(root, paper())
    publish(root, paper(generation=8))
    _keep(monkeypatch, "ca.crt")
    publish(root, paper(generation=9), grace=-GRACE)  # which would prune the others
    with pytest.raises(UnusableDirectoryError, match="not permitted"):
        withdraw(root, LEASE)
    assert {p.name for p in root.glob("gen-*/*")} == {"ca.crt"}


@pytest.mark.parametrize(("generation", "at"), [(7, "stamped"), (8, "rename"), (8, "point"), (8, "stamped")])
def test_interruption_keeps_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation: int, at: str
) -> None:
    root = tmp_path / "root"
    for before in (6, 7):
        publish(root, paper(generation=before))
    found = {p: p.read_bytes() for p in root.glob("*/*")}
    undisturbed = getattr(Root, at)

    def interrupted(*args: Any) -> None:
        monkeypatch.undo()
        undisturbed(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Root, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(root, of_another_lease(generation))
    assert {p: p.read_bytes() for p in root.glob("*/*")} == found
    assert_no_trace(root)


def test_failed_undo_has_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    _keep(monkeypatch, "tls.key")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Root, "point", full)
    with pytest.raises(LeftBehindError, match="cannot be removed"):
        publish(root, paper())
    assert [p.name for p in root.glob("gen-*/*")] == ["tls.key"]


def _keep(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the system refuse to remove files called `name`."""
    unlink = os.unlink

    def refusing(path: str, **options: Any) -> None:
        if path == name:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refusing)


@pytest.mark.parametrize(
    "change", [{"secrets": {"password": Secret("planted\nx")}}, {"login": "a:b"}, {"client_id": "planted\r\nuser = x"}]
)
def test_unfit_value_publishes_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        publish(tmp_path / "root", replace(paper(), **change), [FileFormat.CURL])  # type: ignore[arg-type]
    assert "planted" not in f"{caught.value}{caught.value.hint}"
    assert list((tmp_path / "root").iterdir()) == []


def test_delivery_and_client_load_no_server() -> None:
    probe = textwrap.dedent("""
        import sys, broker.client, broker.delivery.directory
        print(sorted({"stamina", "apscheduler", "uvloop", "broker.vault", "partner_standin"} & set(sys.modules)))
    """)
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
