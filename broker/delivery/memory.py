"""Choose a directory in memory for bundles, so that removed files cannot be recovered."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_MEMORY: Final = r"^\S+ \S+ {}:{} .*? - (?:tmpfs|ramfs) "  # proc(5): the device, and after a lone hyphen the type
_SHARED: Final = Path("/dev/shm")  # noqa: S108  # publishing makes a directory with mode 0700 in it


def default_root(account: str, application: str, environ: Mapping[str, str], uid: int) -> Path:
    """Return the default directory for a bundle: in memory, if this machine has such a place for us.

    `$XDG_RUNTIME_DIR`, `/run/user/<uid>`, `/dev/shm`, else `~/.cache` (`$XDG_CACHE_HOME`), for which `is_memory` is
    false and the caller warns.
    """
    below = Path("credential-broker") / account / application
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, f"/run/user/{uid}"):
        if base.startswith("/") and _usable(Path(base)):
            return base / below
    if _usable(_SHARED):
        # Everybody may write here: the name has the user's number, and publishing refuses another user's directory
        return _SHARED / f"credential-broker-{uid}" / account / application
    cache = environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path(environ.get("HOME", "/")) / ".cache") / below


def is_memory(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Return whether `path`, or its nearest existing parent, is on a memory file system (which may be swapped out)."""
    device = next(place for place in (path, *path.parents) if place.exists()).stat().st_dev
    row = re.compile(_MEMORY.format(os.major(device), os.minor(device)), re.MULTILINE)
    try:
        return bool(row.search(mounts.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False


def _usable(base: Path) -> bool:
    return base.is_dir() and os.access(base, os.W_OK | os.X_OK) and is_memory(base)
