"""The drop folder: people put replies into it, and the broker moves them to `done` or `refused` in it.

Nothing is deleted. A file that is still being written is left for the next time, and no link is followed.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.errors import BrokerError, InputError, unwritable
from broker.model.clock import Clock
from broker.paths import place, replace_file
from broker.pki.wrappings import MOST_BYTES
from broker.scheduling.replies import Dropped

SETTLED: Final = 5.0  # seconds without a change: then a file is taken for complete
_MOST: Final = 100  # files of one turn
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARTIAL: Final = (".part", ".tmp", ".crdownload", ".filepart", "~")  # of browsers and copying programs
_LONGEST_NAME: Final = 200  # octets; a prefix and an ending are added
_FOLDERS: Final = ("done", "refused")


def dropped_files(folder: Path, clock: Clock) -> Iterator[Dropped]:
    """Yield the complete files in `folder`, at most a hundred, by name; raise `InputError`.

    Each must be moved before the next is asked for.

    The folder, and those above it, must belong to root or to our user, and must not be writable by everyone.
    """
    with _opened(folder) as at:
        names = sorted(os.listdir(at))  # noqa: PTH208  # an open directory
        for name in [name for name in names if name not in _FOLDERS and not _is_partial(name)][:_MOST]:
            with suppress(FileNotFoundError):  # another process took it
                yield from _dropped(at, name, clock)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        with place(folder / "done", guarded=True) as found:  # the folder itself, and checked
            at = os.open(".", _DIRECTORY, dir_fd=found.descriptor)
    except OSError as error:
        raise InputError(
            f"cannot read the drop folder {folder}: {error.strerror}", hint="check folder under [replies]"
        ) from None
    try:
        yield at
    finally:
        os.close(at)


def _is_partial(name: str) -> bool:
    return name.startswith(".") or name.endswith(_PARTIAL)


class _File(Struct, frozen=True):
    """A file of the folder that is open as `at`, as it was when `data` was read."""

    at: int
    name: str
    found: os.stat_result
    data: bytes | BrokerError

    def move(self, to: str, why: str) -> None:
        """Move it, with its reason beside it; leave it if it was replaced meanwhile, or is gone."""
        try:
            with suppress(FileExistsError):
                os.mkdir(to, 0o700, dir_fd=self.at)
            target = os.open(to, _DIRECTORY, dir_fd=self.at)
            try:
                moved = _moved_name(self.name, self.data)
                replace_file(target, f"{moved}.txt", why.encode(errors="replace"), 0o600)
                if _same(self.found, os.stat(self.name, dir_fd=self.at, follow_symlinks=False)):
                    os.rename(self.name, moved, src_dir_fd=self.at, dst_dir_fd=target)
            finally:
                os.close(target)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InputError(f"{to} in the drop folder is no directory", hint="remove it") from None
            raise unwritable(f"{to} in the drop folder", error) from None


def _dropped(at: int, name: str, clock: Clock) -> Iterator[Dropped]:
    """Yield the file `name` if it is complete; a link or a device as an error; no directory."""
    found = os.stat(name, dir_fd=at, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode) or abs(time.time() - found.st_mtime) < SETTLED:
        return
    data = _content(at, name, found)
    now = os.stat(name, dir_fd=at, follow_symlinks=False)
    if _same(found, now):
        yield Dropped(name, clock(), data, _File(at, name, found, data).move)


def _content(at: int, name: str, found: os.stat_result) -> bytes | BrokerError:
    if not stat.S_ISREG(found.st_mode):
        return InputError("it is a link or a device, not a file", hint="put the file itself into the folder")
    if found.st_size > MOST_BYTES:
        return InputError(f"it has {found.st_size} bytes, more than {MOST_BYTES}", hint="is this the right file?")
    try:
        with os.fdopen(os.open(name, _FILE, dir_fd=at), "rb") as file:
            return file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        return InputError(f"it cannot be read: {error.strerror}", hint="check its owner and mode")


def _moved_name(name: str, data: bytes | BrokerError) -> str:
    """Return a name that no other content has: nothing is overwritten, and a move can be repeated."""
    digest = hashlib.sha256(data if isinstance(data, bytes) else os.fsencode(name)).hexdigest()[:12]
    short = os.fsdecode(os.fsencode(name)[-_LONGEST_NAME:])
    return f"{digest}-{short}"


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)
