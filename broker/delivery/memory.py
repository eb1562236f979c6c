"""Choose a directory in memory for bundles, so that removed files cannot be recovered."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ROW: Final = re.compile(r"\S+ \S+ (\S+) .*? - (\S+)")  # the third field is the device
_SHARED: Final = Path("/dev/shm")  # noqa: S108  # publishing makes a directory with mode 0700 in it


def default_root(account: str, application: str, environ: Mapping[str, str], uid: int) -> Path:
    """Return the default directory for a bundle: in memory, if this machine has such a place for us.

    `$XDG_RUNTIME_DIR`, `/run/user/<uid>`, `/dev/shm`, else `~/.cache` (`$XDG_CACHE_HOME`), for which `is_memory` is
    false and the caller warns.
    """
    below = Path("credential-broker") / account / application
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    for base in (Path(runtime) if runtime.startswith("/") else None, Path(f"/run/user/{uid}")):
        if base and _usable(base):
            return base / below
    if _usable(_SHARED):
        # Everybody may write here: the name has the user's number, and publishing refuses another user's directory
        return _SHARED / f"credential-broker-{uid}" / account / application
    cache = environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path(environ.get("HOME", "/")) / ".cache") / below


def is_memory(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Return whether `path`, or its nearest existing parent, is on a memory file system (which may be swapped out)."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    device = existing.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(row == number and kind in _MEMORY for row, kind in _rows(mounts))


def _rows(mounts: Path) -> list[tuple[str, str]]:
    """Return device number and type of each mount (proc(5): the type follows a lone hyphen)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = (_ROW.match(line) for line in lines)
    return [(row[1], row[2]) for row in rows if row]


def _usable(base: Path) -> bool:
    return base.is_dir() and os.access(base, os.W_OK | os.X_OK) and is_memory(base)
