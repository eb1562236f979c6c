"""A directory that bundles are published in, held open and locked: every step is taken from its descriptor.

So a path that somebody swaps while we work leads nowhere else, and two publishers take turns. A lock dies with its
process.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.errors import ConflictError, InputError
from broker.model.secret import Secret
from broker.paths import UntrustedPathError, place

__all__ = ["Access", "LeftBehindError", "Root", "UnusableDirectoryError", "held"]

_PATIENCE: Final = 10.0  # seconds; publishing takes milliseconds
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS: Final = re.compile(r"\.?(gen-\d|current)")
_GONE: Final = 3  # times that the directory may vanish while we wait for it


class UnusableDirectoryError(InputError):
    """Bundles cannot be published in this directory."""


class LeftBehindError(UnusableDirectoryError):
    """What was begun there could not be taken back: a key may lie there."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read: the owner, and one group where it is given by number."""

    group: int | None = None

    @property
    def directory(self) -> int:
        """The mode of directories."""
        return 0o700 if self.group is None else 0o750

    @property
    def file(self) -> int:
        """The mode of files, public ones too."""
        return 0o600 if self.group is None else 0o640


class Root:
    """The open, locked directory. Names are relative to it and never followed when they are links."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._fd = descriptor

    def names(self) -> list[str]:
        """Return what lies in it, sorted."""
        return _listed(self._fd)

    def is_directory(self, name: str) -> bool:
        """Return whether `name` is a directory, and no link to one."""
        return stat.S_ISDIR(_mode(self._fd, name))

    def link(self, name: str) -> str | None:
        """Return where the link `name` points; None where there is nothing; raise where it is no link."""
        mode = _mode(self._fd, name)
        if mode and not stat.S_ISLNK(mode):
            raise UnusableDirectoryError(
                f"{self.path / name} is not a link of the broker's", hint="move it away, or publish elsewhere"
            )
        return os.readlink(name, dir_fd=self._fd) if mode else None

    def point(self, name: str, target: str) -> None:
        """Make the link `name` point at `target`, at once and for good."""
        working = f".{name}-{os.getpid()}"
        try:
            os.symlink(target, working, dir_fd=self._fd)
            os.rename(working, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            _remove(self._fd, working)
            raise
        os.fsync(self._fd)

    def make(self, name: str, access: Access) -> None:
        """Make the directory `name`."""
        os.mkdir(name, 0o700, dir_fd=self._fd)
        with self._directory(name) as fd:
            _permit(fd, access.directory, access)

    def rename(self, name: str, to: str) -> None:
        """Give the directory `name` its final name, once all in it has reached the disk."""
        with self._directory(name) as fd:
            os.fsync(fd)
        os.rename(name, to, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def write(self, directory: str, name: str, content: Secret[bytes], access: Access) -> None:
        """Write a file whole or not at all, in place of one that is there."""
        working = f".{name}"
        with self._directory(directory) as fd:
            _remove(fd, working)
            new = os.open(
                working, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd
            )
            try:
                with os.fdopen(new, "wb") as file:
                    _permit(new, access.file, access)
                    file.write(content.reveal())
                    file.flush()
                    os.fsync(new)
                os.rename(working, name, src_dir_fd=fd, dst_dir_fd=fd)
            except BaseException:
                _remove(fd, working)
                raise
            os.fsync(fd)

    def read(self, directory: str, name: str, access: Access | None = None) -> Secret[bytes] | None:
        """Return the content of a file, or None where it is no regular file; set its mode again where `access` says."""
        with self._directory(directory) as fd:
            try:
                found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            except OSError:
                return None
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return None
            if access:
                _permit(found, access.file, access)
            with os.fdopen(found, "rb", closefd=False) as file:
                return Secret(file.read())
        finally:
            os.close(found)

    def files(self, directory: str) -> list[str]:
        """Return what lies in `directory`."""
        with self._directory(directory) as fd:
            return _listed(fd)

    def remove(self, directory: str, ours: frozenset[str]) -> bool:
        """Remove the files called as in `ours`, and the directory if that empties it. Return whether it is gone.

        Each file is tried, though another could not be removed. A directory is none of ours, however it is called.
        """
        with self.opened(directory) as inner:
            inner.clear(ours)
            empty = not inner.names()
        if empty:
            os.rmdir(directory, dir_fd=self._fd)
        return empty

    def clear(self, ours: frozenset[str]) -> None:
        """Remove the files called as in `ours` from this directory itself, wherever it lies now."""
        with ExitStack() as each:
            for name in self.names():
                if name.removeprefix(".") in ours and not stat.S_ISDIR(_mode(self._fd, name)):
                    each.callback(_remove, self._fd, name)

    def unlink(self, name: str) -> None:
        """Remove the link `name`."""
        _remove(self._fd, name)

    def stamp(self, directory: str, at: float) -> None:
        """Set when `directory` was last touched, in seconds since the epoch."""
        os.utime(directory, (at, at), dir_fd=self._fd, follow_symlinks=False)

    def stamped(self, directory: str) -> float:
        """Return when `directory` was last touched."""
        return os.stat(directory, dir_fd=self._fd, follow_symlinks=False).st_mtime

    @contextmanager
    def opened(self, name: str = ".") -> Iterator[Root]:
        """Lend the directory `name` in it, or itself by a descriptor of its own: it is not locked."""
        with self._directory(name) as fd:
            yield Root(self.path / name, fd)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for other publishers, and let `path` be where it lies now: it may have been renamed."""
        with _told(self.path):
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
def held(path: Path, *, make: Access | None = None) -> Iterator[Root]:
    """Lend the directory at `path`, locked; make it first where `make` says with which mode.

    Raise `UnusableDirectoryError` where it cannot be trusted (a link, another's, writable by others, or below a
    directory that is) and for whatever the file system refuses; `ConflictError` where another publisher does not end.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow the link that we refuse
    with _told(path):
        path, fd = _locked(path, make)
        try:
            if make:
                _require_ours(path, fd, make)
                _permit(fd, make.directory, make)
            yield Root(path, fd)
        finally:
            os.close(fd)


def _locked(path: Path, make: Access | None) -> tuple[Path, int]:
    """Return where the directory lies, all links above it followed, and its descriptor."""
    deadline = time.monotonic() + _PATIENCE
    for _ in range(_GONE):
        with place(path, make=make is not None, guarded=True) as found:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(found.name, 0o700, dir_fd=found.descriptor)
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
    raise ConflictError(f"{path} is replaced again and again", hint="let one publisher use it")


def _wait_for_lock(path: Path, fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConflictError(f"another publisher holds {path}", hint="see who does: fuser -v DIR") from None
            time.sleep(0.02)
        else:
            return


def _require_safe(path: Path, found: os.stat_result) -> None:
    me = os.geteuid()
    if found.st_uid != me:
        raise _unsafe(path, f"belongs to user {found.st_uid}", "publish to a directory of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unsafe(path, "can be written by others", f"chmod go-w {path}")


def _require_ours(path: Path, fd: int, access: Access) -> None:
    """Refuse to take away others' access to a directory that holds more than bundles: it might be `/etc`, or `/`."""
    others = stat.S_IMODE(os.fstat(fd).st_mode) & 0o077 & ~access.directory
    if others and not all(_OURS.match(name) for name in _listed(fd)):
        raise _unsafe(path, "holds other things that others may use", "name a directory of the bundle's own")


def _unsafe(path: Path, what: str, hint: str) -> UnusableDirectoryError:
    return UnusableDirectoryError(f"{path} {what}", hint=hint)


def _permit(fd: int, mode: int, access: Access) -> None:
    if access.group is not None:
        os.fchown(fd, -1, access.group)
    os.fchmod(fd, mode)


def _where(fd: int) -> Path | None:
    """Return the path of an open directory as it is now, None where the kernel does not say it."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115  # no path of a file
    except OSError:
        return None


def _mode(fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _listed(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries)


def _remove(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except UntrustedPathError as error:
        raise UnusableDirectoryError(error.message, hint=error.hint) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what, hint = "there is no room left", "make room; nothing was published"
        elif error.errno in (errno.ELOOP, errno.ENOTDIR):
            what, hint = "it is a link, or no directory", "name the directory itself"
        else:
            what, hint = error.strerror or "it cannot be used", "see who owns it, and whether it can be written"
        raise UnusableDirectoryError(f"{path}: {what.lower()}", hint=hint) from None
