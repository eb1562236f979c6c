"""Files are written atomically, and nothing is left beside them."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.paths import write_atomically


def test_write_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before, and longer")
    write_atomically(file, b"after")
    assert file.read_bytes() == b"after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_content_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: found.append((os.fstat(fd).st_size, (tmp_path / "file").exists())))
    write_atomically(tmp_path / "file", b"content")
    assert found[0] == (7, False)


def test_leftover_is_reused(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("half of something longer")
    (tmp_path / ".file.new").chmod(0o600)
    write_atomically(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_readable_leftover_is_not_reused(tmp_path: Path) -> None:
    left = tmp_path / ".file.new"
    left.write_text("")
    left.chmod(0o644)
    with left.open("rb") as spy:
        write_atomically(tmp_path / "file", b"secret")
        assert spy.read() == b""
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_linked_leftover_is_not_reused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "victim").chmod(0o600)
    (tmp_path / ".file.new").hardlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "file", b"secret")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "file").read_bytes() == b"secret"


def test_link_as_leftover_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / ".file.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "file", b"secret")
    assert (tmp_path / "elsewhere").read_text() == ""


@pytest.mark.rights("chown")
def test_foreign_leftover_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("")
    os.chown(tmp_path / ".file.new", 65534, -1)
    with pytest.raises(OSError, match="belongs to another user"):
        write_atomically(tmp_path / "file", b"secret")
    assert not (tmp_path / "file").exists()


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_renamed_directory_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").mkdir()

    def interrupted(_: int) -> None:
        (tmp_path / "place").rename(tmp_path / "away")
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "place" / "file", b"secret")
    assert list((tmp_path / "away").iterdir()) == []


def test_concurrent_writers_take_turns(tmp_path: Path) -> None:
    contents = [str(number).encode() * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write_atomically, tmp_path / "file", c) for c in contents * 10]:
            done.result()
            assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
