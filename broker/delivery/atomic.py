"""Write files atomically, even if the process is killed or two write concurrently."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.paths import place

__all__ = ["replace_file", "write_atomically"]

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_atomically(
    path: Path, content: bytes, mode: int = 0o600, *, follow: bool = False, guarded: bool = False
) -> None:
    """Write or replace the file `path`, durably; raise `UntrustedPathError`, `OSError`.

    `follow` and `guarded` are those of `paths.place`. The working file beside it has a fixed name, so a kill leaves at
    most one, which the next write reuses. It is locked, so that writers take turns. It is removed even if its directory
    was renamed meanwhile.
    """
    with place(path, follow=follow, guarded=guarded) as target:
        replace_file(target.descriptor, target.name, content, mode)


def replace_file(at: int, name: str, content: bytes, mode: int) -> None:
    """Write or replace the file `name` in the open directory `at`, atomically; raise `OSError`."""
    if name in (".", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    working = f".{name}.new"
    with os.fdopen(_held(working, at, mode), "wb") as file:  # closing it releases the lock
        try:
            file.truncate()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.rename(working, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(working, dir_fd=at)
            raise


def _held(working: str, at: int, mode: int) -> int:
    """Return the working file, open and locked. One that others own or can read, or with another name, is not used."""
    while True:
        descriptor = os.open(working, _FLAGS, mode, dir_fd=at)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_ours(descriptor, working, at, mode):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_ours(descriptor: int, working: str, at: int, mode: int) -> bool:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"{working}, the working file, belongs to another user")
    try:
        if not os.path.samestat(found, os.stat(working, dir_fd=at, follow_symlinks=False)):
            return False  # another writer has renamed it
    except FileNotFoundError:
        return False
    if stat.S_IMODE(found.st_mode) & ~mode or found.st_nlink > 1:
        os.unlink(working, dir_fd=at)
        return False
    return True
