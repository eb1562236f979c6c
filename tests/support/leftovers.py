"""Leftovers of a session's tests, which fail it: directories, and processes that run in them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

_PATIENCE = 20.0  # seconds in which a process that was asked to end may end


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Being the first to be set up, it looks when all else is torn down."""
    made: list[str] = []
    real = tempfile.mkdtemp

    def recorded(*args: str | None, **kwargs: str | None) -> str:
        made.append(real(*args, **kwargs))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", recorded)
        yield
    until = time.monotonic() + _PATIENCE
    while (running := list(_running(made, str(tmp_path_factory.getbasetemp())))) and time.monotonic() < until:
        time.sleep(0.1)
    left = [*(directory for directory in made if Path(directory).exists()), *running]
    assert not left, "tests of this session left behind:\n" + "\n".join(left)


def _running(made: Sequence[str], base: str) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = f"{words} in {(process / 'cwd').readlink()}"
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if words and any(f"{directory}/" in f"{where}/" for directory in (*made, base)):
            yield f"process {process.name}: {where}"
