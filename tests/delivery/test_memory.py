"""The default directory of a bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker.delivery import root
from broker.delivery.root import default_root, is_memory


def mounts_at(path: Path, kind: str, table: Path) -> Path:
    device = path.stat().st_dev
    table.write_text(f"36 35 {os.major(device)}:{os.minor(device)} / /x rw,noatime shared:1 - {kind} none rw\n")
    return table


@pytest.mark.parametrize(("kind", "memory"), [("tmpfs", True), ("ramfs", True), ("ext4", False), ("overlay", False)])
def test_mount_type_decides_what_is_memory(tmp_path: Path, kind: str, memory: bool) -> None:
    table = mounts_at(tmp_path, kind, tmp_path / "mounts")
    assert is_memory(tmp_path / "not" / "yet", table) is memory


@pytest.mark.parametrize("text", ["", "garbage\n", "1 2 - tmpfs\n", "a b c - \n"])
def test_damaged_mount_table_is_not_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "mounts").write_text(text)
    assert not is_memory(tmp_path, tmp_path / "mounts")
    assert not is_memory(tmp_path, tmp_path / "missing")


def test_a_place_in_memory_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_CACHE_HOME": "/cache"}
    for place in (tmp_path, Path("/dev/shm")):
        monkeypatch.setattr(root, "is_memory", lambda path, place=place: path == place)
        assert default_root("mzp-1", "reports", environ, 4711).is_relative_to(place)
    monkeypatch.setattr(root, "is_memory", lambda _: False)
    assert default_root("mzp-1", "reports", environ, 4711).is_relative_to("/cache")


def test_unusable_runtime_dir_is_skipped(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "missing"), "HOME": "/people/x"}
    assert not default_root("mzp-1", "reports", environ, 4711).is_relative_to(tmp_path)


def test_shared_memory_path_has_the_user_id() -> None:
    found = default_root("mzp-1", "reports", {"XDG_RUNTIME_DIR": "relative", "HOME": "/people/x"}, 4711)
    assert str(found) in (
        "/dev/shm/credential-broker-4711/mzp-1/reports",
        "/people/x/.cache/credential-broker/mzp-1/reports",
    )
