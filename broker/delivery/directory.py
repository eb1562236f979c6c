"""A bundle as a directory: a generation is there whole or not at all, and is never half old, half new.

    DIR/gen-000007/       tls.key tls.crt … manifest.json
    DIR/current           a link to gen-000007

A program resolves `current` once and reads on from there, or opens `tls-combined.pem` alone: then it never holds the
key of one generation and the certificate of another. That is why a generation that was displaced stays for a while.
Where the files of a generation must change (another client_id, another format), they go to `gen-000007-2` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from broker.delivery.formats import FileFormat, render
from broker.delivery.manifest import MANIFEST, digest, dump, manifest_of, parse
from broker.delivery.root import Access, LeftBehindError, Root, held
from broker.errors import InputError, RefusedError
from broker.model.bundle import Bundle, Manifest
from broker.model.clock import Clock, system_clock
from broker.model.secret import Secret

__all__ = ["CURRENT", "GRACE", "Holding", "publish", "publishing", "withdraw"]

CURRENT: Final = "current"
GRACE: Final = timedelta(minutes=10)  # between resolving the link and opening the last file
_GENERATION: Final = re.compile(r"gen-\d{6,}(?:-\d+)?", re.ASCII)
_WORKING: Final = re.compile(r"\.gen-\d{6,}(?:-\d+)?", re.ASCII)
_WORKING_LINK: Final = re.compile(r"\.current-\d+", re.ASCII)
_OURS: Final = frozenset({MANIFEST, *(f.value for f in FileFormat)})


def publish(
    root: Path,
    bundle: Bundle,
    formats: Collection[FileFormat] = (),
    *,
    access: Access | None = None,
    grace: timedelta = GRACE,
    clock: Clock = system_clock,
) -> Path:
    """Write `bundle` below `root`, point `current` at it, and return the generation's own directory.

    What a killed run left is removed first; a generation that is already there gets a new manifest. Displaced
    generations are removed once `grace` has passed, by this or a later call. Where this raises, all is as it was:
    `UnusableDirectoryError` where the directory cannot be used or is full, `LeftBehindError` where even that could not
    be restored; `RefusedError` where it holds another application's bundle; what `render` raises.
    """
    with publishing(root, bundle, formats, access=access, grace=grace, clock=clock) as holding:
        return holding.path


@contextmanager
def publishing(
    root: Path,
    bundle: Bundle,
    formats: Collection[FileFormat] = (),
    *,
    access: Access | None = None,
    grace: timedelta = GRACE,
    clock: Clock = system_clock,
) -> Iterator[Holding]:
    """Do as `publish`, and keep what was written in reach, for `withdraw`, though its directories are renamed."""
    permitted = access or Access()
    with ExitStack() as kept:
        with held(root, make=permitted) as directory:
            own = kept.enter_context(directory.opened())
            _sweep(directory)
            _require_same_holder(directory, bundle)
            before = _State(directory.link(CURRENT), {n: directory.read(n, MANIFEST) for n in _generations(directory)})
            try:
                name = _stored(directory, bundle, formats, permitted)
                _turn(directory, name, clock())
                _prune(directory, name, clock() - grace)
                holding = Holding(own, kept.enter_context(directory.opened(name)), bundle.lease_id)
            except BaseException:
                _restore(directory, before, permitted)
                raise
        yield holding


class Holding:
    """What was published under one lease, in directories that are held open."""

    def __init__(self, root: Root, generation: Root, lease: str) -> None:
        self.path = generation.path
        self._root, self._generation, self._lease = root, generation, lease
        self._files = _OURS.intersection(generation.names())

    def withdraw(self) -> tuple[Path, ...]:
        """Remove it, wherever its directories lie now; return what `withdraw` does.

        Raise `LeftBehindError` where a file is no longer in them, so that it may lie elsewhere;
        `UnusableDirectoryError` where one could not be removed.
        """
        with self._root.locked(), ExitStack() as last:
            last.callback(self._clear)  # though `withdraw` raises
            lost = self._lost()
            staying = withdraw(self._root, self._lease)
        if lost:
            raise LeftBehindError(
                f"{self.path}: {', '.join(lost)} cannot be found: moved or removed by somebody else",
                hint="remove what was moved; the lease stays on record until it ends",
            )
        return staying

    def _lost(self) -> list[str]:
        """Return the files that are missing, unless a successor has them, or removed them with what it displaced."""
        there = self._generation.names()
        if self._is_anothers() or (not there and self._has_successor()):
            return []
        return sorted(self._files.difference(there))

    def _has_successor(self) -> bool:
        current = self._root.link(CURRENT)
        return current in _generations(self._root) and _lease(self._root, current) not in (self._lease, None)

    def _clear(self) -> None:
        if not self._is_anothers():
            self._generation.clear(_OURS)

    def _is_anothers(self) -> bool:
        return _lease(self._generation, ".") not in (self._lease, None)


def withdraw(directory: Root, lease: str) -> tuple[Path, ...]:
    """Remove what was published in `directory` under the lease with the id `lease`; `directory` itself stays.

    While `current` is that lease's, all that `publish` put there goes. Once another lease has taken its place, only
    the generations that are not the other's go: a holder that ends leaves its successor's files alone.

    Return the generations that stay: another lease's, or holding what somebody else put into them. What a program has
    read, or copied elsewhere, lives on. Raise `OSError` where a file of ours could not be removed.
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


@dataclass(frozen=True, slots=True)
class _State:
    """What was published before: where `current` pointed, and each generation's manifest."""

    current: str | None
    manifests: Mapping[str, Secret[bytes] | None]


def _restore(directory: Root, before: _State, access: Access) -> None:
    """Take back what was published, so that whoever asked can give the lease back; or say that it lies there."""
    try:
        if before.current is None:
            directory.unlink(CURRENT)
        elif directory.link(CURRENT) != before.current:
            directory.point(CURRENT, before.current)
        _sweep(directory)
        now = _generations(directory)
        for name in now:
            manifest = before.manifests.get(name)
            if manifest and directory.read(name, MANIFEST) != manifest:
                directory.write(name, MANIFEST, manifest, access)
        _remove_all(directory, [name for name in now if name not in before.manifests])
    except OSError as error:
        raise LeftBehindError(
            f"{directory.path}: a bundle was half published and cannot be taken back ({error.strerror})",
            hint="remove what lies there; its lease stays on record until it ends",
        ) from None


def _remove_all(directory: Root, names: Iterable[str]) -> None:
    """Remove generations: each is tried, though another could not be removed."""
    with ExitStack() as each:
        for name in names:
            each.callback(directory.remove, name, _OURS)


def _stored(directory: Root, bundle: Bundle, formats: Collection[FileFormat], access: Access) -> str:
    """Return the name under which `bundle` lies there, having written what was missing of it."""
    for name in _names_for(bundle.generation):
        files = render(bundle, formats, directory.path / name)
        if not directory.is_directory(name):
            _store_anew(directory, name, bundle, files, access)
            return name
        there = _same(directory, name, files, access)
        if there is not None:
            manifest = dump(manifest_of(bundle, there))
            directory.write(name, MANIFEST, Secret(manifest), access)
            return name
    raise AssertionError("names never end")


def _store_anew(
    directory: Root, name: str, bundle: Bundle, files: dict[FileFormat, Secret[bytes]], access: Access
) -> None:
    working = f".{name}"
    directory.make(working, access)
    _fill(directory, working, bundle, files, access)
    directory.rename(working, name)


def _names_for(generation: int) -> Iterator[str]:
    first, number = f"gen-{generation:06d}", 1
    yield first
    while True:
        number += 1
        yield f"{first}-{number}"


def _fill(directory: Root, name: str, bundle: Bundle, files: dict[FileFormat, Secret[bytes]], access: Access) -> None:
    for file, content in files.items():
        directory.write(name, file.value, content, access)
    directory.write(name, MANIFEST, Secret(dump(manifest_of(bundle, files))), access)


def _same(
    directory: Root, name: str, files: dict[FileFormat, Secret[bytes]], access: Access
) -> dict[FileFormat, Secret[bytes]] | None:
    """Return the files as they lie there, if they are these; a key store need only be there, since each is unique."""
    left_behind = {MANIFEST, f".{MANIFEST}"}  # the second by a run that was killed
    if set(directory.files(name)) - left_behind != {file.value for file in files}:
        return None
    there = {}
    for file, content in files.items():
        found = directory.read(name, file.value, access)
        if found is None or (found != content and not file.random):
            return None
        there[file] = found
    if any(f.random for f in there) and not _unharmed(directory, name, there):
        return None
    return there


def _unharmed(directory: Root, name: str, there: dict[FileFormat, Secret[bytes]]) -> bool:
    """Whether the files still are what their manifest says: a key store cannot be compared with a new one."""
    manifest = _manifest(directory, name)
    return manifest is not None and all(
        manifest.files.get(f.value) == digest(content) for f, content in there.items() if f.random
    )


def _manifest(directory: Root, name: str) -> Manifest | None:
    found = directory.read(name, MANIFEST)
    try:
        return parse(found.reveal()) if found else None
    except InputError:
        return None


def _lease(directory: Root, name: str) -> str | None:
    manifest = _manifest(directory, name)
    return manifest.lease_id if manifest else None


def _require_same_holder(directory: Root, bundle: Bundle) -> None:
    current = directory.link(CURRENT)
    if current is None or not _GENERATION.fullmatch(current) or not directory.is_directory(current):
        return
    manifest = _manifest(directory, current)
    if manifest and (manifest.account, manifest.application) != (bundle.account, bundle.application):
        raise RefusedError(
            f"{directory.path} holds the bundle of {manifest.account}/{manifest.application}",
            hint="give each application a directory of its own",
        )


def _turn(directory: Root, name: str, now: datetime) -> None:
    before = directory.link(CURRENT)
    if before == name:
        return
    if before and _GENERATION.fullmatch(before) and directory.is_directory(before):
        directory.stamp(before, now.timestamp())  # its grace begins
    directory.point(CURRENT, name)


def _prune(directory: Root, current: str, before: datetime) -> None:
    for name in _generations(directory):
        if name != current and directory.stamped(name) < before.timestamp():
            with suppress(OSError):  # it is no part of what is published; the next call, or `withdraw`, tries again
                directory.remove(name, _OURS)


def _sweep(directory: Root) -> None:
    """Remove what a killed run left under its working names."""
    for name in directory.names():
        if _WORKING.fullmatch(name) and directory.is_directory(name):
            directory.remove(name, _OURS)
        elif _WORKING_LINK.fullmatch(name):
            directory.unlink(name)


def _generations(directory: Root) -> list[str]:
    return [name for name in directory.names() if _GENERATION.fullmatch(name) and directory.is_directory(name)]
