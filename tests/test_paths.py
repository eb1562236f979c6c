"""Paths through no link of another user and, if guarded, through no directory that others control."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.paths import UntrustedPathError, open_file, place, read_file

STRANGER = 65534
Make = Callable[[Path], Path]


def strangers_link(link: Path, target: Path | str) -> Path:
    link.symlink_to(target)
    os.lchown(link, STRANGER, -1)
    return link


def as_a_parent(tmp_path: Path) -> Path:
    return strangers_link(tmp_path / "link", tmp_path / "real") / "file"


def in_a_sticky_directory(tmp_path: Path) -> Path:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    return strangers_link(tmp_path / "sticky" / "link", tmp_path / "real") / "file"


def behind_a_link_of_ours(tmp_path: Path) -> Path:
    (tmp_path / "ours").symlink_to("link")
    strangers_link(tmp_path / "link", "real")
    return tmp_path / "ours" / "file"


def before_a_step_up(tmp_path: Path) -> Path:
    return strangers_link(tmp_path / "link", tmp_path / "real") / ".." / "file"


@pytest.mark.rights("chown")
@pytest.mark.parametrize("make", [as_a_parent, in_a_sticky_directory, behind_a_link_of_ours, before_a_step_up])
def test_a_strangers_link_is_not_followed(tmp_path: Path, make: Make) -> None:
    (tmp_path / "real").mkdir()
    path = make(tmp_path)
    for made in (False, True):
        with pytest.raises(UntrustedPathError, match="is a link of user 65534"), place(path, make=made):
            pass
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.rights("chown")
def test_a_strangers_link_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("secret")
    link = strangers_link(tmp_path / "link", "file")
    with pytest.raises(UntrustedPathError, match="is a link of user"):
        read_file(link)
    with place(link) as found:
        assert found.path == link


@pytest.mark.parametrize("text", ["real/file", "link/file", "chain/file", "link/../real/file", "up/real/file"])
def test_links_of_ours_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("content")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "chain").symlink_to(tmp_path / "link")
    (tmp_path / "up").symlink_to(f"../{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    for path in (Path(text), tmp_path / text):
        assert read_file(path) == b"content"
        with place(path) as found:
            assert found.path == Path(os.path.realpath(path))
            assert os.stat(found.name, dir_fd=found.descriptor).st_size == 7


def test_a_last_link_is_followed_where_asked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    for follow, name in ((False, "link"), (True, "nothing")):
        with place(tmp_path / "link", follow=follow) as found:
            assert found.path == tmp_path / name


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links") as caught, place(tmp_path / "one" / "file"):
        pass
    assert caught.value.errno == errno.ELOOP


def test_links_of_the_kernel_are_followed() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    assert read_file(Path(f"/dev/fd/{reading}")) == b"through a pipe"
    os.close(reading)


def test_missing_directories_are_made_0700(tmp_path: Path) -> None:
    with place(tmp_path / "a" / "b" / "file", make=True) as found:
        assert found.name == "file"
    assert [stat.S_IMODE((tmp_path / p).stat().st_mode) for p in ("a", "a/b")] == [0o700, 0o700]
    with pytest.raises(FileNotFoundError), place(tmp_path / "c" / "file"):
        pass


def test_swapped_path_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    with place(tmp_path / "real" / "file") as found:
        (tmp_path / "real").rename(tmp_path / "away")
        (tmp_path / "real").symlink_to("other")
        os.close(os.open(found.name, os.O_WRONLY | os.O_CREAT, dir_fd=found.descriptor))
    assert (tmp_path / "away" / "file").exists()


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_guarded_place_may_be_below_sticky(tmp_path: Path, mode: int) -> None:
    (tmp_path / "above").mkdir()
    (tmp_path / "above").chmod(mode)
    with place(tmp_path / "above" / "file", guarded=True) as found:
        assert found.name == "file"


@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_guarded_place_refuses_open_parents(tmp_path: Path, mode: int) -> None:
    (tmp_path / "above" / "real").mkdir(parents=True)
    (tmp_path / "above").chmod(mode)
    path = tmp_path / "above" / "real" / "file"
    with place(path) as found:
        assert found.path == path
    with pytest.raises(UntrustedPathError, match="which others control"), place(path, guarded=True):
        pass


@pytest.mark.rights("chown")
def test_a_guarded_place_is_below_no_others(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", STRANGER, -1)
    path = tmp_path / "theirs" / "file"
    with pytest.raises(UntrustedPathError, match="which others control"), place(path, guarded=True):
        pass


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError), place(tmp_path / "file" / "x"):
        pass
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path, os.O_WRONLY)
