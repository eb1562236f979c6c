"""The directory that bundles are published in, held open and locked: every step uses its descriptor.

So a path that is swapped meanwhile leads nowhere else, and publishers take turns. A lock ends with its process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from broker.errors import ConflictError, InputError
from broker.model.secret import Secret
from broker.paths import UntrustedPathError, place

__all__ = ["FILE_MODE", "LeftBehindError", "Root", "UnusableDirectoryError", "held"]

FILE_MODE: Final = 0o600  # of public files too
_DIRECTORY_MODE: Final = 0o700
_PATIENCE: Final = 10.0  # seconds; publishing takes milliseconds
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS: Final = re.compile(r"\.?(gen-\d|current)")
_GONE: Final = 3  # times that the directory may be replaced while its lock is awaited


class UnusableDirectoryError(InputError):
    """Bundles cannot be published in this directory."""


class LeftBehindError(UnusableDirectoryError):
    """A failed publishing could not be undone: the directory may hold a key."""


class Root:
    """The open, locked directory. Names are relative to it; links are never followed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._fd = descriptor

    def names(self) -> list[str]:
        """Return the names in it, sorted."""
        with os.scandir(self._fd) as entries:
            return sorted(entry.name for entry in entries)

    def is_directory(self, name: str) -> bool:
        """Return whether `name` is a directory, not a link to one."""
        return stat.S_ISDIR(_mode(self._fd, name))

    def link(self, name: str) -> str | None:
        """Return the target of the link `name`, or None; raise `UnusableDirectoryError` if it is not a link."""
        mode = _mode(self._fd, name)
        if mode and not stat.S_ISLNK(mode):
            raise UnusableDirectoryError(
                f"{self.path / name} is not a link", hint="move it away, or use another directory"
            )
        return os.readlink(name, dir_fd=self._fd) if mode else None

    def point(self, name: str, target: str) -> None:
        """Point the link `name` at `target`, atomically and durably."""
        working = f".{name}-{os.getpid()}"
        try:
            os.symlink(target, working, dir_fd=self._fd)
            os.rename(working, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            _remove(self._fd, working)
            raise
        os.fsync(self._fd)

    def make(self, name: str) -> None:
        """Make the directory `name`."""
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=self._fd)

    def rename(self, name: str, to: str) -> None:
        """Give the directory `name` its final name, after its entries have reached the disk."""
        with self._directory(name) as fd:
            os.fsync(fd)
        os.rename(name, to, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def write(self, directory: str, name: str, content: Secret[bytes]) -> None:
        """Write or replace a file, atomically."""
        working = f".{name}"
        with self._directory(directory) as fd:
            _remove(fd, working)
            new = os.open(working, _NEW, FILE_MODE, dir_fd=fd)
            try:
                with os.fdopen(new, "wb") as file:
                    os.fchmod(new, FILE_MODE)
                    file.write(content.reveal())
                    file.flush()
                    os.fsync(new)
                os.rename(working, name, src_dir_fd=fd, dst_dir_fd=fd)
            except BaseException:
                _remove(fd, working)
                raise
            os.fsync(fd)

    def read(self, directory: str, name: str, *, mode: int | None = None) -> Secret[bytes] | None:
        """Return the content of a file, or None if it is not a regular file; set its mode to `mode`."""
        with self._directory(directory) as fd:
            try:
                found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            except OSError:
                return None
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return None
            if mode is not None:
                os.fchmod(found, mode)
            with os.fdopen(found, "rb", closefd=False) as file:
                return Secret(file.read())
        finally:
            os.close(found)

    def remove(self, directory: str, ours: frozenset[str]) -> bool:
        """Remove the files named in `ours`, and the directory if that empties it. Return whether it is gone.

        Each file is tried, even if another could not be removed. A directory of such a name stays.
        """
        with self.opened(directory) as inner:
            inner.clear(ours)
            empty = not inner.names()
        if empty:
            os.rmdir(directory, dir_fd=self._fd)
        return empty

    def clear(self, ours: frozenset[str]) -> None:
        """Remove the files named in `ours` from this directory, even if it was moved."""
        with ExitStack() as each:
            for name in self.names():
                if name.removeprefix(".") in ours and not stat.S_ISDIR(_mode(self._fd, name)):
                    each.callback(_remove, self._fd, name)

    def unlink(self, name: str) -> None:
        """Remove the link `name`."""
        _remove(self._fd, name)

    def stamp(self, directory: str, at: float) -> None:
        """Set the time stamp of `directory`, in seconds since the epoch."""
        os.utime(directory, (at, at), dir_fd=self._fd, follow_symlinks=False)

    def stamped(self, directory: str) -> float:
        """Return the time stamp of `directory`."""
        return os.stat(directory, dir_fd=self._fd, follow_symlinks=False).st_mtime

    @contextmanager
    def opened(self, name: str = ".") -> Iterator[Root]:
        """Lend the directory `name`, or this one, with a new descriptor and without a lock."""
        with self._directory(name) as fd:
            yield Root(self.path / name, fd)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for other publishers, and update `path`: the directory may have been renamed."""
        with _as_unusable(self.path):
            _wait_for_lock(self.path, self._fd, time.monotonic() + _PATIENCE)
            self.path = _where(self._fd) or self.path
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def _directory(self, name: str) -> Iterator[int]:
        fd = os.open(name, _OPEN, dir_fd=self._fd)
        try:
            yield fd
        finally:
            os.close(fd)


@contextmanager
def held(path: Path, *, make: bool = False) -> Iterator[Root]:
    """Lend the directory at `path`, locked; with `make`, create it and set its mode.

    Raise `UnusableDirectoryError` if it cannot be trusted (a link, another user's, writable by others, or below such a
    directory) and for errors of the file system; `ConflictError` if another publisher holds the lock for long.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow the link that we refuse
    with _as_unusable(path):
        path, fd = _locked(path, make=make)
        try:
            if make:
                _require_ours(path, fd)
                os.fchmod(fd, _DIRECTORY_MODE)
            yield Root(path, fd)
        finally:
            os.close(fd)


def _locked(path: Path, *, make: bool) -> tuple[Path, int]:
    """Return the path of the directory, with all links above it followed, and its descriptor."""
    deadline = time.monotonic() + _PATIENCE
    for _ in range(_GONE):
        with place(path, make=make, guarded=True) as found:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(found.name, _DIRECTORY_MODE, dir_fd=found.descriptor)
            fd = os.open(found.name, _OPEN, dir_fd=found.descriptor)
        try:
            _require_safe(found.path, os.fstat(fd))
            _wait_for_lock(found.path, fd, deadline)
            if os.path.samestat(os.fstat(fd), os.stat(found.path, follow_symlinks=False)):  # noqa: PTH116  # of an lstat
                return found.path, fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise ConflictError(f"{path} is being replaced", hint="publish to a directory that no other program replaces")


def _wait_for_lock(path: Path, fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConflictError(f"another publisher holds {path}", hint=f"find it: fuser -v {path}") from None
            time.sleep(0.02)
        else:
            return


def _require_safe(path: Path, found: os.stat_result) -> None:
    me = os.geteuid()
    if found.st_uid != me:
        raise _unsafe(path, f"belongs to user {found.st_uid}", "use a directory that belongs to you")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unsafe(path, "can be written by others", f"chmod go-w {path}")


def _require_ours(path: Path, fd: int) -> None:
    """Refuse to close a directory to others if it holds more than bundles: it might be `/etc`, or `/`."""
    others = os.fstat(fd).st_mode & 0o077
    if others and not all(_OURS.match(name) for name in Root(path, fd).names()):
        raise _unsafe(path, "holds other files, which other users can read", "use a directory for this bundle alone")


def _unsafe(path: Path, what: str, hint: str) -> UnusableDirectoryError:
    return UnusableDirectoryError(f"{path} {what}", hint=hint)


def _where(fd: int) -> Path | None:
    """Return the current path of an open directory, None if the kernel does not know it."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115  # not the path of a file
    except OSError:
        return None


def _mode(fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _remove(fd: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)


@contextmanager
def _as_unusable(path: Path) -> Iterator[None]:
    try:
        yield
    except UntrustedPathError as error:
        raise UnusableDirectoryError(error.message, hint=error.hint) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what, hint = "there is no space left", "free some space; nothing was published"
        elif error.errno in (errno.ELOOP, errno.ENOTDIR):
            what, hint = "it is a link, or not a directory", "name the directory itself"
        else:
            what, hint = error.strerror or "it cannot be used", f"see its owner and mode: ls -ld {path}"
        raise UnusableDirectoryError(f"{path}: {what.lower()}", hint=hint) from None
