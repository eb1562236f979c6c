"""Reuse a published bundle: of processes that start together, one fetches it and the others read its files.

    DIR/fetched           the lock, and the lease and origin of the bundle that was fetched last

The mark says who fetched a bundle from where: another consumer, or another broker, never gets it from here.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from broker.delivery.formats import FileFormat
from broker.delivery.restoring import Published, published
from broker.delivery.root import held
from broker.errors import ConflictError
from broker.model.bundle import Manifest, Wanted
from broker.model.lease import LONGEST as LONGEST_TERM
from broker.paths import take_lock

_NOTE: Final = "fetched"
_LONGEST: Final = 1024  # bytes of it
_PATIENCE: Final = 30.0  # seconds; then it goes on beside a process that is stopped or very slow
_SHARE: Final = 0.5  # of its term that a bundle must have left


def is_fresh(manifest: Manifest, wanted: Wanted, formats: Collection[FileFormat], now: datetime) -> bool:
    """Return whether a published bundle serves for `wanted`: at least half of its term is left, and no more than all.

    A clock that was set back shows more than all.
    """
    term, left = min(wanted.ttl, LONGEST_TERM), manifest.expires - now
    same = (manifest.account, manifest.application) == (wanted.account, wanted.application)
    complete = {f.value for f in formats} <= manifest.files.keys()
    return same and complete and _SHARE * term <= left <= term


def shared(root: Path, mark: str, serves: Callable[[Manifest], bool], fetch: Callable[[], object]) -> Published:
    """Return the bundle in `root` if it was fetched under `mark`, is whole, and `serves`; else call `fetch` first.

    One process at a time does this. With `mark` "" nothing is reused.
    """
    with _turn(root) as note:
        found = published(root)
        if found and mark and note.read(_LONGEST) == _line(found, mark) and serves(found.manifest):
            return found
        fetch()
        found = published(root)
        if not found:
            raise ConflictError(f"the files in {root} were removed immediately", hint="run the command again")
        with suppress(OSError):  # such as a full disk: the next one fetches again
            note.seek(0)
            note.truncate()
            note.write(_line(found, mark))
            note.flush()
        return found


@contextmanager
def _turn(root: Path) -> Iterator[BinaryIO]:
    with held(root) as directory:
        file = directory.appended(_NOTE)
    with file:
        take_lock(file, _PATIENCE)
        file.seek(0)
        yield file


def _line(found: Published, mark: str) -> bytes:
    return f"{found.manifest.lease_id} {mark}\n".encode()
