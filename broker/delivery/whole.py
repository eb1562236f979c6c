"""A file written whole or not at all, also by a process that is killed, and by two at once."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["write_whole"]

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` at `path` and on the disk, in place of what is there; raise `OSError`.

    The working file beside it has one name, so a kill leaves at most one, and the next write uses it up. It is locked,
    so that two writers take turns.
    """
    working = path.with_name(f".{path.name}.new")
    with os.fdopen(_held(working, mode), "wb") as file:  # closing it ends the lock
        try:
            file.truncate()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            working.replace(path)
        except BaseException:
            working.unlink(missing_ok=True)
            raise


def _held(working: Path, mode: int) -> int:
    """Return the working file, open and locked. One that others can read, have by another name, or own, is not used."""
    while True:
        descriptor = os.open(working, _FLAGS, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_ours(descriptor, working, mode):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_ours(descriptor: int, working: Path, mode: int) -> bool:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"{working.name}, which it is made in, is somebody else's")
    try:
        if not os.path.samestat(found, working.lstat()):
            return False  # another writer has finished with it, and it is the file itself now
    except FileNotFoundError:
        return False
    if stat.S_IMODE(found.st_mode) & ~mode or found.st_nlink > 1:
        working.unlink()
        return False
    return True
