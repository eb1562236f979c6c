"""The directory that bundles are published in, held open and locked: every step uses its descriptor.

So a path that is swapped meanwhile leads nowhere else, and publishers take turns. A lock ends with its process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from broker.errors import FULL, ConflictError, InputError, StorageFullError
from broker.model.secret import Secret
from broker.paths import UntrustedPathError, place, replace_file, take_lock

_FILE_MODE: Final = 0o600  # of public files too
_DIRECTORY_MODE: Final = 0o700
_PATIENCE: Final = 10.0  # seconds; publishing takes milliseconds
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS: Final = re.compile(r"\.?(gen-\d|current|lease\.json)|fetched$")
_GONE: Final = 3  # times that the directory may be replaced while its lock is awaited
_MOUNTS: Final = Path("/proc/self/mountinfo")
_MEMORY: Final = r"^\S+ \S+ {}:{} .*? - (?:tmpfs|ramfs) "  # proc(5): the device, and after a lone hyphen the type
_SHARED: Final = Path("/dev/shm")  # noqa: S108  # publishing makes a directory with mode 0700 in it


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
        return sorted(os.listdir(self._fd))  # noqa: PTH208  # a descriptor

    def is_directory(self, name: str) -> bool:
        """Return whether `name` is a directory, not a link to one."""
        return stat.S_ISDIR(self._mode(name))

    def link(self, name: str) -> str | None:
        """Return the target of the link `name`, or None; raise `UnusableDirectoryError` if it is not a link."""
        mode = self._mode(name)
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
            self.rename(working, name)
        except BaseException:
            self.unlink(working)
            raise

    def make(self, name: str) -> None:
        """Make the directory `name`."""
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=self._fd)

    def rename(self, name: str, to: str) -> None:
        """Rename `name` to `to`, durably."""
        os.rename(name, to, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def write(self, name: str, content: Secret[bytes]) -> None:
        """Write or replace a file, atomically and durably."""
        replace_file(self._fd, name, content.reveal(), _FILE_MODE)
        os.fsync(self._fd)

    def read(self, name: str) -> Secret[bytes] | None:
        """Return the content of a file, None if it cannot be opened or is no regular file; close it to other users."""
        try:
            file = open(name, "rb", opener=partial(_unfollowed, self._fd))  # noqa: SIM115  # closed below
        except OSError:
            return None
        with file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                return None
            if stat.S_IMODE(mode) != _FILE_MODE:
                os.fchmod(file.fileno(), _FILE_MODE)
            return Secret(file.read())

    def appended(self, name: str) -> BinaryIO:
        """Open a file of ours for reading and appending; make it if it is missing; raise `UnusableDirectoryError`."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with as_unusable(self.path / name):
            return os.fdopen(os.open(name, flags, _FILE_MODE, dir_fd=self._fd), "r+b", buffering=0)

    def remove(self, directory: str, ours: frozenset[str]) -> None:
        """Remove the files named in `ours` from `directory`, and the directory if that empties it.

        Each file is tried, even if another could not be removed. A directory of such a name stays.
        """
        with self.opened(directory) as inner:
            inner.clear(ours)
            if inner.names():
                return
        os.rmdir(directory, dir_fd=self._fd)

    def clear(self, ours: frozenset[str]) -> None:
        """Remove the files named in `ours` from this directory, even if it was moved."""
        with ExitStack() as each:
            for name in self.names():
                if name.removeprefix(".").removesuffix(".new") in ours and not self.is_directory(name):
                    each.callback(self.unlink, name)

    def unlink(self, name: str) -> None:
        """Remove the link or file `name`."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def claim(self, name: str) -> int | None:
        """Lock the file `name` as long as the returned descriptor is open; return None if another process has it."""
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE, dir_fd=self._fd)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=self._fd, follow_symlinks=False)):
                return fd
        os.close(fd)
        return None

    def is_at(self, path: Path) -> bool:
        """Return whether `path` still leads to this directory."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(path, follow_symlinks=False))  # noqa: PTH116
        except OSError:
            return False

    def stamp(self, directory: str, at: float) -> None:
        """Set the time stamp of `directory`, in seconds since the epoch."""
        os.utime(directory, (at, at), dir_fd=self._fd, follow_symlinks=False)

    def stamped(self, directory: str) -> float:
        """Return the time stamp of `directory`."""
        return os.stat(directory, dir_fd=self._fd, follow_symlinks=False).st_mtime

    @contextmanager
    def opened(self, name: str = ".") -> Iterator[Root]:
        """Lend the directory `name`, or this one, with a new descriptor and without a lock."""
        fd = os.open(name, _OPEN, dir_fd=self._fd)
        try:
            yield Root(self.path / name, fd)
        finally:
            os.close(fd)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for other publishers, and update `path`: the directory may have been renamed."""
        with as_unusable(self.path):
            if not take_lock(self._fd, _PATIENCE):
                raise ConflictError(f"another publisher holds {self.path}", hint=f"find it: fuser -v {self.path}")
            with suppress(OSError):
                self.path = Path(os.readlink(f"/proc/self/fd/{self._fd}"))  # noqa: PTH115  # not the path of a file
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _mode(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return 0


def _unfollowed(at: int, name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)


@contextmanager
def held(path: Path) -> Iterator[Root]:
    """Lend the directory at `path`, locked; make it if it is missing, and set its mode.

    Raise `UnusableDirectoryError` if it cannot be trusted (a link, another user's, writable by others, or below such a
    directory) and for errors of the file system; `ConflictError` if another publisher holds the lock for long.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow the link that we refuse
    with as_unusable(path), ExitStack() as opened:
        for _ in range(_GONE):
            with place(path, make=True, guarded=True) as found:
                with suppress(FileExistsError):
                    os.mkdir(found.name, _DIRECTORY_MODE, dir_fd=found.descriptor)
                fd = os.open(found.name, _OPEN, dir_fd=found.descriptor)
            opened.callback(os.close, fd)
            _require_safe(found.path, fd)
            root = Root(found.path, fd)
            opened.enter_context(root.locked())
            if os.path.samestat(os.fstat(fd), os.stat(found.path, follow_symlinks=False)):  # noqa: PTH116  # of an lstat
                os.fchmod(fd, _DIRECTORY_MODE)
                yield root
                return
            opened.close()
    raise ConflictError(f"{path} is being replaced", hint="publish to a directory that no other program replaces")


def _require_safe(path: Path, fd: int) -> None:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise UnusableDirectoryError(
            f"{path} belongs to user {found.st_uid}",
            hint="use a directory that belongs to you; XDG_RUNTIME_DIR=PATH moves the default one",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnusableDirectoryError(f"{path} can be written by others", hint=f"chmod go-w {path}")
    # Closed to others, a directory with more than bundles would break what they use: it might be `/etc`, or `/`
    if found.st_mode & 0o077 and not all(_OURS.match(name) for name in os.listdir(fd)):  # a descriptor
        raise UnusableDirectoryError(
            f"{path} holds other files, which other users can read", hint="use a directory for this bundle alone"
        )


@contextmanager
def as_unusable(path: Path) -> Iterator[None]:
    """Raise `UnusableDirectoryError` or `StorageFullError` for an `OSError` with `path`."""
    try:
        yield
    except UntrustedPathError as error:
        raise UnusableDirectoryError(error.message, hint=error.hint) from None
    except OSError as error:
        if error.errno in FULL:
            hint = "free some space; nothing was published"
            raise StorageFullError(f"{path}: there is no space left", hint=hint) from None
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            what, hint = "it is a link, or not a directory", "name the directory itself"
        else:
            nearest = next(one for one in (path, *path.parents) if os.path.lexists(one))
            what, hint = error.strerror or "it cannot be used", f"see its owner and mode: ls -ld {nearest}"
        raise UnusableDirectoryError(f"{path}: {what.lower()}", hint=hint) from None


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
