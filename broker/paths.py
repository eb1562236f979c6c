"""Open paths without following a link of another user, and write files atomically.

A path is walked by descriptors: each component is opened from the directory before it, so that a swapped component
cannot lead elsewhere. A link is followed if root or our user owns it, in any directory. The kernel has this rule only
in sticky directories, and only with fs.protected_symlinks=1 (proc(5)).
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from broker.errors import InputError

_STEP: Final = os.O_PATH | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TICK: Final = 0.02  # seconds between two attempts to lock
_LINKS: Final = 40  # as many as the kernel follows: path_resolution(7)


class UntrustedPathError(InputError):
    """A path leads through a link or a directory that others control."""


class Place(Struct, frozen=True):
    """A name in an open directory. Only the last part of `path` may be a link, or nothing."""

    path: Path
    descriptor: int  # made with O_PATH: good for `dir_fd=`

    @property
    def name(self) -> str:
        """The last part, for `dir_fd=descriptor`."""
        return self.path.name or "."


@contextmanager
def place(path: Path, *, follow: bool = False, make: bool = False, guarded: bool = False) -> Iterator[Place]:
    """Yield the place that `path` leads to; with `follow`, its last part is not a link either.

    With `make`, missing directories above it are made, 0700. With `guarded`, every directory above it must belong to
    root or to our user, and may be writable by all only if it is sticky. Raise `UntrustedPathError`, `OSError`.
    """
    walk = _Walk(Path.cwd() / path if guarded else path)
    try:
        yield walk.to_the_end(follow=follow, make=make, guarded=guarded)
    finally:
        os.close(walk.at)


def open_file(path: Path, flags: int) -> int:
    """Open `path`, following links of root and of our user; raise `UntrustedPathError`, `OSError`."""
    with place(path, follow=True) as found:
        if not _is_proc(found.descriptor):
            flags |= os.O_NOFOLLOW
        return os.open(found.name, flags | os.O_CLOEXEC, dir_fd=found.descriptor)


def read_file(path: Path) -> bytes:
    """Return the content of the file at `path`; raise as `open_file`."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_atomically(
    path: Path, content: bytes, mode: int = 0o600, *, follow: bool = False, guarded: bool = False
) -> None:
    """Write or replace the file `path`, durably; raise `UntrustedPathError`, `OSError`.

    `follow` and `guarded` are those of `place`. The working file beside it has a fixed name, so a kill leaves at
    most one, which the next write reuses. It is locked, so that writers take turns. It is removed even if its directory
    was renamed meanwhile.
    """
    with place(path, follow=follow, guarded=guarded) as target:
        replace_file(target.descriptor, target.name, content, mode)


def replace_file(at: int, name: str, content: bytes, mode: int) -> None:
    """Write or replace the file `name` in the open directory `at`, atomically; raise `OSError`."""
    with staged(at, name, content, mode) as rename:
        rename()


@contextmanager
def staged(
    at: int, name: str, content: bytes, mode: int, owner: tuple[int, int] | None = None
) -> Iterator[Callable[[], None]]:
    """Write `.NAME.new` in the open directory `at`, and lend what renames it to `name`; else it is removed at the end.

    So several files can be written before the first is renamed. `owner` is user and group, -1 for ours.
    """
    if name in (".", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    working = working_name(name)
    with os.fdopen(_held(working, at, mode), "wb") as file:  # closing it releases the lock
        try:
            file.truncate()
            file.write(content)
            file.flush()
            if owner:
                os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode)  # as it is asked for, without the umask
            os.fsync(file.fileno())
            yield lambda: os.rename(working, name, src_dir_fd=at, dst_dir_fd=at)
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(working, dir_fd=at, follow_symlinks=False)):
                    os.unlink(working, dir_fd=at)


def working_name(name: str) -> str:
    """Return the name of the working file for `name`, which a kill may leave."""
    return f".{name}.new"


def take_lock(file: int | BinaryIO, seconds: float, unless: Callable[[], object] = bool) -> bool:
    """Lock an open file or directory; return False if it stays locked for `seconds`, or `unless` returns true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if unless():
            return False
        time.sleep(_TICK)
    return False


def _held(working: str, at: int, mode: int) -> int:
    """Return the working file, open and locked. One that others own or can read, or with another name, is not used."""
    while True:
        descriptor = os.open(working, _WRITE, mode, dir_fd=at)
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


class _Walk:
    """An open directory, its path, and the remaining components, the next one last."""

    def __init__(self, path: Path) -> None:
        self.asked = path
        self.here = Path("/") if path.is_absolute() else Path.cwd()
        self.at = os.open("/" if path.is_absolute() else ".", _STEP)
        self.ahead = _reversed_parts(path)
        self.links = 0

    def to_the_end(self, *, follow: bool, make: bool, guarded: bool) -> Place:
        while True:
            if guarded:
                self._require_guarded()
            name = self.ahead.pop() if self.ahead else "."
            if not self.ahead and not (follow and self._leads_on(name)):
                return Place(self.here / name, self.at)
            self._step(name, make=make)

    def _step(self, name: str, *, make: bool) -> None:
        step = _opened(name, self.at, make=make)
        try:
            found = os.fstat(step)
            if stat.S_ISLNK(found.st_mode):
                self._turn(self.here / name, found, Path(os.readlink("", dir_fd=step)))
            elif stat.S_ISDIR(found.st_mode):
                step, self.at = self.at, step
                self.here = self.here.parent if name == ".." else self.here / name
            else:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        finally:
            os.close(step)

    def _turn(self, link: Path, found: os.stat_result, target: Path) -> None:
        """Continue at the target of a link, if it may be followed."""
        if found.st_uid not in (0, os.geteuid()):
            raise UntrustedPathError(
                f"{link} is a link of user {found.st_uid}; refusing to follow it",
                hint="name the directory or file itself",
            )
        self.links += 1
        if self.links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.is_absolute():
            start = os.open("/", _STEP)
            os.close(self.at)
            self.at, self.here = start, Path("/")
        self.ahead += _reversed_parts(target)

    def _leads_on(self, name: str) -> bool:
        """Return whether `name` is a link to follow. Only the kernel can follow those in /proc, as in /dev/fd."""
        try:
            mode = os.stat(name, dir_fd=self.at, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        return stat.S_ISLNK(mode) and not _is_proc(self.at)

    def _require_guarded(self) -> None:
        found = os.fstat(self.at)
        sticky = found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & stat.S_IWOTH and not sticky):
            raise UntrustedPathError(
                f"{self.asked} lies below {self.here}, which others control",
                hint="name a directory that only root and you can change",
            )


def _opened(name: str, at: int, *, make: bool) -> int:
    flags = _STEP if _is_proc(at) else _STEP | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=at)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)
    return os.open(name, flags, dir_fd=at)


def _is_proc(at: int) -> bool:
    """Return whether `at` is a directory of the proc file system, whose links the kernel makes."""
    try:
        return os.fstat(at).st_dev == os.stat("/proc").st_dev  # noqa: PTH116
    except FileNotFoundError:
        return False


def _reversed_parts(path: Path) -> list[str]:
    return [part for part in reversed(path.parts) if part != path.anchor]
