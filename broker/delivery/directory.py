"""Publish a bundle as a directory: a generation is complete or absent, and never half old, half new.

    DIR/gen-000007/       tls.key tls.crt … manifest.json
    DIR/current           a link to gen-000007

A program resolves `current` once and reads from there, or opens `tls-combined.pem` alone: then it never holds the key
of one generation and the certificate of another. So a displaced generation stays for a while. If the files of a
generation must change (another client_id, another format), the new ones go to `gen-000007-2` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

from broker.delivery.formats import MANIFEST, FileFormat, digest, dump, manifest_of, parse, render
from broker.delivery.root import LeftBehindError, Root, held
from broker.errors import InputError, RefusedError
from broker.model.bundle import Bundle, Manifest
from broker.model.clock import Clock
from broker.model.secret import Secret

CURRENT: Final = "current"
GRACE: Final = timedelta(minutes=10)  # between resolving the link and opening the last file
_GENERATION: Final = re.compile(r"gen-\d{6,}(?:-\d+)?", re.ASCII)
_WORKING_LINK: Final = re.compile(r"\.current-\d+", re.ASCII)
_OURS: Final = frozenset({MANIFEST, *(f.value for f in FileFormat)})


@contextmanager
def publishing(
    root: Path,
    bundle: Bundle,
    formats: Collection[FileFormat],
    clock: Clock,
    stage: Callable[[Root], None] = lambda _: None,
) -> Iterator[Publication]:
    """Write `bundle` below `root`, point `current` at it, and lend what was published, for `Publication.withdraw`.

    Leftovers of a killed run are removed first; a generation that is already there gets a new manifest. Displaced
    generations are removed once their grace has passed, by this or a later call. `stage` gets the written generation
    before `current` points at it. If this raises, the directory is as before: `UnusableDirectoryError` if it cannot be
    used or is full, `LeftBehindError` if even that could not be restored; `RefusedError` if it holds another
    application's bundle; what `render` and `stage` raise.
    """
    with ExitStack() as kept:
        with held(root) as directory:
            own = kept.enter_context(directory.opened())
            _sweep(directory)
            _require_same_holder(directory, bundle)
            before = directory.link(CURRENT), {name: _written(directory, name) for name in _generations(directory)}
            try:
                name = _stored(directory, bundle, formats)
                with directory.opened(name) as generation:
                    stage(generation)
                _switch(directory, name, clock())
                _prune(directory, name, clock() - GRACE)
                publication = Publication(own, kept.enter_context(directory.opened(name)), bundle.lease_id)
            except BaseException:
                _restore(directory, *before)
                raise
        yield publication


class Publication:
    """The files published under one lease, in directories that are held open."""

    def __init__(self, root: Root, generation: Root, lease: str) -> None:
        self.path = generation.path
        self._root, self._generation, self._lease = root, generation, lease
        self._files = _OURS.intersection(generation.names())

    def withdraw(self) -> tuple[Path, ...]:
        """Remove the files, even if their directories were moved; return what `withdraw` returns.

        Raise `LeftBehindError` if a file is missing and may exist elsewhere; `UnusableDirectoryError` if one could not
        be removed.
        """
        with self._root.locked(), ExitStack() as last:
            last.callback(self._clear)  # even if `withdraw` raises
            lost = self._lost()
            staying = withdraw(self._root, self._lease)
        if lost:
            raise LeftBehindError(
                f"{self.path}: {', '.join(lost)} cannot be found: another program moved or removed it",
                hint="remove the moved files; the lease stays on record until it ends",
            )
        return staying

    def prune(self, now: datetime) -> None:
        """Remove displaced generations whose grace has passed; raise `UnusableDirectoryError`."""
        with self._root.locked():
            current = self._root.link(CURRENT)
            if current:
                _prune(self._root, current, now - GRACE)

    def has(self, generation: str) -> bool:
        """Return whether the generation with this name has files."""
        return self._root.is_directory(generation)

    def _lost(self) -> list[str]:
        """Return the missing files, unless a successor owns them, or removed them as displaced."""
        there, current = self._generation.names(), self._root.link(CURRENT)
        succeeded = current in _generations(self._root) and _lease(self._root, current) not in (self._lease, None)
        if self._belongs_to_another() or (succeeded and not there):
            return []
        return sorted(self._files.difference(there))

    def _clear(self) -> None:
        if not self._belongs_to_another():
            self._generation.clear(_OURS)

    def _belongs_to_another(self) -> bool:
        return _lease(self._generation) not in (self._lease, None)


def withdraw(directory: Root, lease: str) -> tuple[Path, ...]:
    """Remove what was published in `directory` under the lease with the id `lease`; `directory` itself stays.

    While `current` belongs to that lease, everything published goes. If it belongs to another lease, only generations
    of this one go: a holder that ends leaves its successor's files alone.

    Return the generations that stay: those of another lease, or with foreign files in them. Copies that programs made
    stay. Raise `OSError` if a published file could not be removed.
    """
    _sweep(directory)
    target = directory.link(CURRENT)
    doomed = _generations(directory)
    if target in doomed and _lease(directory, target) not in (lease, None):
        doomed = [name for name in doomed if _lease(directory, name) == lease]
    elif target is not None and _GENERATION.fullmatch(target):
        directory.unlink(CURRENT)
    _remove_all(directory, doomed)
    return tuple(directory.path / name for name in _generations(directory))


def cleared(directory: Root) -> None:
    """Remove everything that was published in `directory`, by any holder; raise `OSError` if that fails."""
    _sweep(directory)
    if directory.link(CURRENT) is not None:
        directory.unlink(CURRENT)
    _remove_all(directory, _generations(directory))


def _restore(directory: Root, current: str | None, manifests: Mapping[str, Secret[bytes] | None]) -> None:
    """Undo what was published, so that the caller can return the lease; raise `LeftBehindError` if that fails.

    `current` is the former target of the link, `manifests` has the former manifest of each generation.
    """
    try:
        if current is None:
            directory.unlink(CURRENT)
        elif directory.link(CURRENT) != current:
            directory.point(CURRENT, current)
        _sweep(directory)
        now = _generations(directory)
        for name in now:
            manifest = manifests.get(name)
            if manifest and _written(directory, name) != manifest:
                with directory.opened(name) as generation:
                    generation.write(MANIFEST, manifest)
        _remove_all(directory, [name for name in now if name not in manifests])
    except OSError as error:
        raise LeftBehindError(
            f"{directory.path}: a bundle was partly published and cannot be removed ({error.strerror})",
            hint=f"remove the files in {directory.path}; the lease stays on record until it ends",
        ) from None


def _remove_all(directory: Root, names: Iterable[str]) -> None:
    """Remove generations; try each, even if another could not be removed."""
    with ExitStack() as each:
        for name in names:
            each.callback(directory.remove, name, _OURS)


def _stored(directory: Root, bundle: Bundle, formats: Collection[FileFormat]) -> str:
    """Return the name of the generation that holds `bundle`; write what is missing of it."""
    for number in count(1):
        name = f"gen-{bundle.generation:06d}" + (f"-{number}" if number > 1 else "")
        files = render(bundle, formats, directory.path / name)
        if not directory.is_directory(name):
            directory.make(f".{name}")
            with directory.opened(f".{name}") as generation:
                for file, content in files.items():
                    generation.write(file.value, content)
                generation.write(MANIFEST, Secret(dump(manifest_of(bundle, files))))
            directory.rename(f".{name}", name)
            return name
        with directory.opened(name) as generation:
            there = _same(generation, files)
            if there is not None:
                manifest = Secret(dump(manifest_of(bundle, there)))
                if generation.read(MANIFEST) != manifest:
                    generation.write(MANIFEST, manifest)
                return name
    raise AssertionError("names never end")


def _same(generation: Root, files: Mapping[FileFormat, Secret[bytes]]) -> Mapping[FileFormat, Secret[bytes]] | None:
    """Return the stored files if they equal `files`, and set their modes.

    Key stores differ in each rendering: they are compared with the manifest.
    """
    leftovers = {MANIFEST, f".{MANIFEST}.new"}  # the second of a run that was killed
    if set(generation.names()) - leftovers != {file.value for file in files}:
        return None
    stored, there = _manifest(generation), {}
    for file, content in files.items():
        found = generation.read(file.value)
        expected = stored.files.get(file.value) if stored and file.random else digest(content)
        if found is None or digest(found) != expected:
            return None
        there[file] = found
    return there


def _written(directory: Root, name: str) -> Secret[bytes] | None:
    """Return the manifest of the generation `name` as it is stored."""
    with directory.opened(name) as generation:
        return generation.read(MANIFEST)


def _manifest(directory: Root, name: str = ".") -> Manifest | None:
    found = _written(directory, name)
    try:
        return parse(found.reveal()) if found else None
    except InputError:
        return None


def _lease(directory: Root, name: str = ".") -> str | None:
    manifest = _manifest(directory, name)
    return manifest.lease_id if manifest else None


def _require_same_holder(directory: Root, bundle: Bundle) -> None:
    current = directory.link(CURRENT)
    manifest = _manifest(directory, current) if current in _generations(directory) else None
    if manifest and (manifest.account, manifest.application) != (bundle.account, bundle.application):
        raise RefusedError(
            f"{directory.path} holds the bundle of {manifest.account}/{manifest.application}",
            hint="use another directory for each application",
        )


def _switch(directory: Root, name: str, now: datetime) -> None:
    before = directory.link(CURRENT)
    if before == name:
        return
    if before in _generations(directory):
        directory.stamp(before, now.timestamp())  # its grace begins
    directory.point(CURRENT, name)


def _prune(directory: Root, current: str, before: datetime) -> None:
    for name in _generations(directory):
        if name != current and directory.stamped(name) < before.timestamp():
            with suppress(OSError):  # it is not current; the next call, or `withdraw`, tries again
                directory.remove(name, _OURS)


def _sweep(directory: Root) -> None:
    """Remove the working files of a killed run."""
    for name in directory.names():
        if name.startswith(".") and _GENERATION.fullmatch(name[1:]) and directory.is_directory(name):
            directory.remove(name, _OURS)
        elif _WORKING_LINK.fullmatch(name):
            directory.unlink(name)


def _generations(directory: Root) -> list[str]:
    return [name for name in directory.names() if _GENERATION.fullmatch(name) and directory.is_directory(name)]
