"""Files of a bundle: a directory with generations, and copies of some files at other paths."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from stat import S_IMODE

from msgspec import Struct

from broker.delivery.directory import Publication, publishing
from broker.delivery.formats import FileFormat
from broker.delivery.root import Root, as_unusable
from broker.errors import InputError
from broker.model.bundle import Bundle
from broker.model.clock import Clock
from broker.model.secret import Secret
from broker.paths import Place, place, staged, working_name


class Copy(Struct, frozen=True):
    """A file of the bundle at another path. `owner` is user and group, -1 for ours."""

    file: FileFormat
    path: Path
    mode: int = 0o600
    owner: tuple[int, int] = (-1, -1)


class Files:
    """An `Output`. All files are of one bundle: each is written before the first is renamed."""

    def __init__(self, root: Path, formats: Collection[FileFormat], clock: Clock, copies: Sequence[Copy] = ()) -> None:
        self.root = root
        self._formats = {*formats, *(copy.file for copy in copies)}
        self._clock = clock
        self._copies = copies
        self._open = ExitStack()
        self._places: list[Place] = []
        self._publication: Publication | None = None

    def write(self, bundle: Bundle) -> None:
        """Publish `bundle`. If it raises, all is as before, unless a copy was written and could not be renamed."""
        with ExitStack() as opened, ExitStack() as written:
            renames: list[Callable[[], None]] = []
            places = [opened.enter_context(_located(copy)) for copy in self._copies]

            def stage(generation: Root) -> None:
                for copy, at in zip(self._copies, places, strict=True):
                    with as_unusable(copy.path):
                        renames.extend(written.enter_context(one) for one in _staged(generation, copy, at))

            publication = opened.enter_context(publishing(self.root, bundle, self._formats, self._clock, stage))
            self.close()
            self._open, self._publication, self._places = opened.pop_all(), publication, places
            with as_unusable(self.root):
                for rename in renames:
                    rename()

    @property
    def path(self) -> Path:
        """The directory of the published generation."""
        return self._published.path

    def withdraw(self) -> tuple[Path, ...]:
        """Remove the files; return what stays. If it raises, the files that are left stay recorded."""
        _without(self._places)
        self._places = []
        return self._published.withdraw()

    def remove(self) -> None:
        """Remove the files, if any were published."""
        if self._publication:
            self.withdraw()

    def prune(self, now: datetime) -> None:
        """Remove displaced generations whose grace has passed; raise `UnusableDirectoryError`."""
        self._published.prune(now)

    def has(self, generation: str) -> bool:
        """Return whether the generation with this name has files."""
        return self._published.has(generation)

    def close(self) -> None:
        """Close the directories."""
        self._open.close()

    @property
    def _published(self) -> Publication:
        if not self._publication:
            raise AssertionError("nothing was published")
        return self._publication


def removed(paths: Collection[Path]) -> None:
    """Remove copies that a killed process left, and its working files; raise `InputError`."""
    for path in paths:
        with as_unusable(path), suppress(FileNotFoundError, NotADirectoryError), place(path, guarded=True) as found:
            _without([found])


@contextmanager
def _located(copy: Copy) -> Iterator[Place]:
    with ExitStack() as opened:
        with as_unusable(copy.path):
            found = opened.enter_context(place(copy.path, guarded=True))
        yield found


def _without(places: Sequence[Place]) -> None:
    """Remove a file and its working file at each place, even if another could not be removed."""
    with ExitStack() as each:
        for at in places:
            each.enter_context(as_unusable(at.path))
            for name in (at.name, working_name(at.name)):
                each.callback(_unlink, name, at.descriptor)


def _unlink(name: str, at: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)


def _staged(generation: Root, copy: Copy, at: Place) -> Iterator[AbstractContextManager[Callable[[], None]]]:
    """Yield what writes the copy, unless it is there already."""
    content = generation.read(copy.file.value)
    if content is None:
        raise InputError(f"{copy.path}: this bundle has no {copy.file.value}", hint="remove it from [[bundles.files]]")
    if not _is_there(copy, at, content):
        yield staged(at.descriptor, at.name, content.reveal(), copy.mode, copy.owner)


def _is_there(copy: Copy, at: Place, content: Secret[bytes]) -> bool:
    try:
        found = os.open(at.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at.descriptor)
    except OSError:
        return False
    with os.fdopen(found, "rb") as file:
        status = os.fstat(file.fileno())
        owner = (status.st_uid, status.st_gid)
        fitting = all(wanted in (-1, is_) for wanted, is_ in zip(copy.owner, owner, strict=True))
        return fitting and S_IMODE(status.st_mode) == copy.mode and file.read() == content.reveal()
