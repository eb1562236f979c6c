"""Files of the agent: a directory, and copies elsewhere, all of one generation."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from broker.agent.files import Copy, Files, removed
from broker.copies import replace
from broker.delivery.formats import FileFormat
from broker.errors import BrokerError, InputError, StorageFullError
from broker.model.clock import system_clock
from tests.support.credential_sets import paper

KEY, CERTIFICATE = FileFormat.KEY, FileFormat.CERTIFICATE


def made(tmp_path: Path, *copies: Copy) -> Files:
    return Files(tmp_path / "bundle", [], system_clock, copies)


def test_copies_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first is renamed, all are written."""
    files = made(tmp_path, Copy(KEY, tmp_path / "k"), Copy(CERTIFICATE, tmp_path / "c"))
    seen: list[set[str]] = []
    rename = os.rename

    def renamed(source: Any, target: Any, **at: Any) -> None:
        if target in ("k", "c"):
            seen.append({path.name for path in tmp_path.iterdir()})
        rename(source, target, **at)

    monkeypatch.setattr(os, "rename", renamed)
    files.write(paper(generation=1))
    assert seen[0] == {"bundle", ".k.new", ".c.new"}
    files.write(paper(generation=1))
    assert len(seen) == 2, "what is there is not written again"
    (tmp_path / "k").chmod(0o644)
    files.write(paper(generation=1))
    assert (len(seen), (tmp_path / "k").stat().st_mode & 0o777) == (3, 0o600)
    files.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_copy_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = made(tmp_path, Copy(KEY, tmp_path / "k"), Copy(CERTIFICATE, tmp_path / "no" / "c"))
    with pytest.raises(InputError, match="no/c"):
        files.write(paper(generation=1))
    assert not (tmp_path / "bundle" / "current").exists()
    (tmp_path / "no").mkdir()
    files.write(paper(generation=1))
    before = (tmp_path / "k").read_bytes()
    fsync, full = os.fsync, [0]

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == ".c.new":
            full[0] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    (tmp_path / "no" / "c").unlink()
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageFullError, match="no/c: there is no space left"):
        files.write(paper(generation=2))
    assert ((tmp_path / "bundle" / "current").readlink(), full) == (Path("gen-000001"), [1])
    assert (tmp_path / "k").read_bytes() == before
    assert not list(tmp_path.rglob(".*.new"))


def test_a_file_that_the_bundle_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this bundle has no password"):
        made(tmp_path, Copy(FileFormat.PASSWORD, tmp_path / "p")).write(replace(paper(generation=1), secrets={}))


@pytest.mark.rights("chown")
def test_a_copy_has_its_owner(tmp_path: Path) -> None:
    files = made(tmp_path, Copy(KEY, tmp_path / "k", 0o640, (65532, 65533)))
    files.write(paper(generation=1))
    found = (tmp_path / "k").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65532, 65533, 0o640)


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(BrokerError, match="which others control"):
        made(tmp_path, Copy(KEY, open_to_all / "k")).write(paper(generation=1))
    assert not list(open_to_all.iterdir())


def test_a_moved_copy_is_removed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    files = made(tmp_path, Copy(KEY, tmp_path / "here" / "k"))
    files.write(paper(generation=1))
    (tmp_path / "here").rename(tmp_path / "there")
    files.remove()
    assert not list((tmp_path / "there").iterdir())


def test_leftovers_are_removed(tmp_path: Path) -> None:
    for name in ("k", ".k.new"):
        (tmp_path / name).write_text("left")
    removed([tmp_path / "k", tmp_path / "none", tmp_path / "no" / "dir"])
    assert not list(tmp_path.iterdir())
