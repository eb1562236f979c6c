"""`lease.json` beside the files of a bundle: the texts of its leases, as secret as the key.

So a later process renews them or gives them back: the next start of an agent, or `broker lease`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from broker.delivery.root import Root, UnusableDirectoryError, held
from broker.model.bundle import Bundle, Granted
from broker.model.clock import Clock
from broker.model.lease import Consumer, Lease
from broker.model.secret import Secret
from broker.typed import from_json

LEASE: Final = "lease.json"
LOCK: Final = "agent.lock"  # an agent that uses the directory holds it
STATE: Final = "state.json"  # of an agent, which knows of files elsewhere
_SCHEMA: Final = 1


class _Row(msgspec.Struct):
    text: str
    lease: Lease
    directory: str = ""


class _Leases(msgspec.Struct):
    rows: list[_Row]
    schema: int = _SCHEMA


def encoded(leases: Sequence[tuple[Granted, str]]) -> bytes:
    """Return the file for these leases with their directories; nothing if there is none."""
    rows = [_Row(granted.lease_text.reveal(), granted.lease, name) for granted, name in leases]
    return msgspec.json.encode(_Leases(rows)) if rows else b""


def decoded(content: Secret[bytes] | None) -> list[tuple[Granted, str]]:
    """Return the leases in the file, without bundles; none if it is damaged."""
    try:
        found = from_json(content.reveal(), _Leases) if content else None
    except (msgspec.MsgspecError, ValueError):
        return []
    rows = found.rows if found and found.schema == _SCHEMA else []
    return [
        (Granted(_nothing(row.lease), Consumer("", ""), row.lease, Secret(row.text)), row.directory) for row in rows
    ]


def claimed(directory: Root, root: Path) -> int:
    """Claim the directory at `root` as long as the returned descriptor is open; raise `UnusableDirectoryError`."""
    claim = directory.claim(LOCK)
    if claim is None:
        raise UnusableDirectoryError(f"another agent uses {root}", hint=f"find it: fuser -v {root / LOCK}")
    return claim


def require_unclaimed(directory: Root, root: Path) -> None:
    """Raise `UnusableDirectoryError` if an agent uses the directory at `root`."""
    if LOCK in directory.names():
        os.close(claimed(directory, root))


class Keeper:
    """Keeps leases of `bundle get` in the directory `root`."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._mine: set[str] = set()

    def save(self, leases: Sequence[tuple[Granted, str]]) -> None:
        """Keep these leases in place of those saved before; those of other processes stay until they end."""
        given = {granted.lease.id for granted, _ in leases}
        with held(self._root) as directory:
            require_unclaimed(directory, self._root)
            others = [
                (one, name)
                for one, name in decoded(directory.read(LEASE))
                if one.lease.id not in self._mine | given and one.lease.expires > self._clock()
            ]
            self._mine = given
            store(directory, [*leases, *others])

    def keeps(self) -> bool:
        """Return whether nobody has given back meanwhile what was saved."""
        with held(self._root) as directory:
            return self._mine <= {one.lease.id for one, _ in decoded(directory.read(LEASE))}


def store(directory: Root, leases: Sequence[tuple[Granted, str]]) -> None:
    """Write the file, or remove it if there is no lease; raise `OSError`."""
    if leases:
        directory.write(LEASE, Secret(encoded(leases)))
    else:
        directory.clear(frozenset({LEASE}))  # its working file too


def _nothing(lease: Lease) -> Bundle:
    """Return a bundle without content: the files have it."""
    of = (lease.account, lease.application, lease.generation)
    return Bundle(*of, "", "", "", {}, Secret(b""), "", lease.expires, "", lease.id, lease.expires)
