"""The drop folder: complete files are read once, and nothing in it is lost."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.errors import BrokerError, InputError
from broker.people.drop_folder import dropped_files
from broker.pki.wrappings import MOST_BYTES
from broker.scheduling.replies import Dropped

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "replies"
    made.mkdir(mode=0o770)
    return made


def put(folder: Path, name: str, data: bytes = b"reply") -> Path:
    path = folder / name
    path.write_bytes(data)
    os.utime(path, LONG_AGO)
    return path


def read(folder: Path) -> list[Dropped]:
    return list(dropped_files(folder, lambda: NOW))


def taken(folder: Path, to: str = "done") -> list[str]:
    names = []
    for file in dropped_files(folder, lambda: NOW):
        names.append(file.name)
        file.move(to, "because\n")
    return names


def test_files_are_moved_with_a_reason(folder: Path) -> None:
    put(folder, "a.pem")
    put(folder, "b.pem", b"other")
    assert taken(folder) == ["a.pem", "b.pem"]
    assert taken(folder) == []
    moved = sorted(path.name.split("-", 1)[1] for path in (folder / "done").iterdir())
    assert moved == ["a.pem", "a.pem.txt", "b.pem", "b.pem.txt"]
    assert {path.read_text() for path in (folder / "done").glob("*.txt")} == {"because\n"}


def test_same_name_again_overwrites_nothing(folder: Path) -> None:
    for data in (b"one", b"two", b"two"):
        put(folder, "reply.pem", data)
        taken(folder)
    assert sorted(path.read_bytes() for path in (folder / "done").glob("*.pem")) == [b"one", b"two"]


def test_unfinished_files_are_left(folder: Path) -> None:
    (folder / "fresh.pem").write_bytes(b"half a re")
    for name in (".hidden", "copy.part", "page.crdownload", "note~"):
        put(folder, name)
    (folder / "sub").mkdir()
    assert read(folder) == []


def test_file_that_changes_while_it_is_read(folder: Path) -> None:
    path = put(folder, "reply.pem")
    files = dropped_files(folder, lambda: NOW)
    file = next(files)
    path.write_bytes(b"more, written since")
    file.move("done", "because\n")
    assert path.read_bytes() == b"more, written since"


def test_links_and_devices_are_refused(folder: Path, tmp_path: Path) -> None:
    secret = put(tmp_path, "secret", b"the password")
    (folder / "link.pem").symlink_to(secret)
    os.utime(folder / "link.pem", LONG_AGO, follow_symlinks=False)
    os.mkfifo(folder / "pipe.pem")
    os.utime(folder / "pipe.pem", LONG_AGO)
    for file in dropped_files(folder, lambda: NOW):
        assert isinstance(file.data, BrokerError)
        file.move("refused", f"{file.data.message}\n")
    assert secret.read_bytes() == b"the password"
    assert not (folder / "link.pem").exists()
    assert "not a file" in next((folder / "refused").glob("*link.pem.txt")).read_text()


def test_huge_files_are_not_read(folder: Path) -> None:
    path = put(folder, "reply.pem")
    os.truncate(path, MOST_BYTES + 1)
    os.utime(path, LONG_AGO)
    (file,) = read(folder)
    assert isinstance(file.data, InputError)
    assert str(MOST_BYTES + 1) in file.data.message


def test_done_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "done").symlink_to(elsewhere)
    path = put(folder, "reply.pem")
    with pytest.raises(InputError, match="done in the drop folder is no directory"):
        taken(folder)
    assert path.exists()
    assert not list(elsewhere.iterdir())


def test_folder_of_everyone_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(InputError, match="which others control"):
        read(folder)


def test_missing_folder_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        read(tmp_path / "missing")
    assert "[replies]" in caught.value.hint


def test_file_that_another_process_took(folder: Path) -> None:
    put(folder, "reply.pem")
    files = dropped_files(folder, lambda: NOW)
    file = next(files)
    taken(folder)
    file.move("done", "because\n")
    assert not (folder / "reply.pem").exists()


def test_names_of_any_octets_are_moved(folder: Path) -> None:
    path = os.fsencode(folder) + b"/" + b"\xff\x1b" * 100 + b".pem"
    with open(path, "wb") as file:  # noqa: PTH123 - not a name in UTF-8
        file.write(b"x")
    os.utime(path, LONG_AGO)
    assert len(taken(folder, "refused")) == 1
    assert len(list((folder / "refused").iterdir())) == 2
