"""Shared options: files that may get a secret, and files that may not."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from broker.cli.options import writable_secret, write_output
from broker.errors import InputError


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("victim"))


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [a_link, a_link_to_nothing, a_pipe])
def test_secret_is_written_through_no_link(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "victim").write_text("precious")
    place = tmp_path / "token"
    make(place)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="is not a plain file"):
        write_output(str(place), b"hvs.token", mode=0o600)
    with pytest.raises(InputError, match="is not a plain file"):
        writable_secret(click.Context(click.Command("x")), click.Option(["--x"]), str(place))
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(tmp_path.iterdir()) == before


def test_secret_replaces_and_public_follows(tmp_path: Path) -> None:
    place, target = tmp_path / "place", tmp_path / "target"
    place.write_text("before")
    write_output(str(place), b"hvs.token", mode=0o600)
    assert (place.read_bytes(), stat.S_IMODE(place.stat().st_mode)) == (b"hvs.token", 0o600)
    (tmp_path / "link").symlink_to(target)
    write_output(str(tmp_path / "link"), b"public")
    assert target.read_bytes() == b"public"
