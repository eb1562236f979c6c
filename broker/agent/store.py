"""What the agent keeps beside the files of a bundle: `lease.json` (`agent.leases`) and `state.json`.

So a process that starts after a kill uses the lease that stands, or gives it back, and repeats no hook.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from broker.agent.leases import LEASE, LOCK, STATE, claimed, decoded, encoded
from broker.copies import replace
from broker.delivery.restoring import restored
from broker.delivery.root import Root, as_unusable, held
from broker.model.bundle import Bundle, Granted
from broker.model.secret import Secret
from broker.typed import from_json


class State(Struct, frozen=True):
    """What was done. Nothing in it is secret."""

    hooked: str = ""  # the directory of the generation that the last successful hook was for
    failed: str = ""  # the reason that the last hook on failure was for
    copies: tuple[str, ...] = ()  # paths of files outside of the directory


class Left(Struct, frozen=True):
    """What an earlier process left: a bundle that is whole, and leases of others with their directories."""

    granted: Granted | None = None
    others: tuple[tuple[Granted, str], ...] = ()


class Store:
    """The directory of one bundle, as long as this process uses it: no other one can."""

    def __init__(self, root: Path) -> None:
        self.root, self.state = root, State()
        self._open = ExitStack()
        self._directory: Root | None = None
        self._changing = threading.Lock()
        self._leases = b""

    def open(self) -> Left:
        """Claim the directory, and return what an earlier process left; raise `UnusableDirectoryError`."""
        with ExitStack() as opened:
            with held(self.root) as directory:
                own = opened.enter_context(directory.opened())
                opened.callback(os.close, claimed(own, self.root))
                found = restored(own)
                kept = own.read(LEASE)
                state = _state(own.read(STATE))
            self._leases = kept.reveal() if kept else b""
            self._open, self._directory, self.state = opened.pop_all(), own, state
        return _left(found, decoded(kept))

    def save(self, leases: Sequence[tuple[Granted, str]]) -> None:
        """Keep these leases; raise `StorageFullError`, `UnusableDirectoryError`."""
        content = encoded(leases)
        if content != self._leases:
            self._write(LEASE, content)
            self._leases = content

    def note(self, **changed: Any) -> None:
        """Change the state."""
        with self._changing:
            after = replace(self.state, **changed)
            if after != self.state:
                self._write(STATE, msgspec.json.encode(after))
                self.state = after

    @property
    def is_open(self) -> bool:
        """Whether the directory is claimed."""
        return self._directory is not None

    @property
    def has_moved(self) -> bool:
        """Whether the directory was renamed or removed."""
        return self._directory is not None and not self._directory.is_at(self.root)

    def clear(self) -> None:
        """Remove what is kept, even if the directory was renamed, and give the directory free."""
        if self._directory:
            for name in (LEASE, STATE, LOCK):
                with suppress(OSError):
                    self._directory.unlink(name)
        self.close()

    def close(self) -> None:
        """Give the directory free."""
        self._directory = None
        self._open.close()

    def _write(self, name: str, content: bytes) -> None:
        if self._directory is None:
            return
        with as_unusable(self.root / name):
            if content:
                self._directory.write(name, Secret(content))
            else:
                self._directory.unlink(name)


def _state(found: Secret[bytes] | None) -> State:
    try:
        return from_json(found.reveal(), State) if found else State()
    except (msgspec.MsgspecError, ValueError):  # damaged: as if it were not there
        return State()


def _left(found: tuple[str, Bundle] | None, leases: Sequence[tuple[Granted, str]]) -> Left:
    """Return the bundle with its lease, if both are there and fit; and the other leases."""
    if not found:
        return Left(None, tuple(leases))
    _, bundle = found
    own = next((one for one, _ in leases if one.lease.id == bundle.lease_id), None)
    others = tuple((one, name) for one, name in leases if one is not own)
    if not own:
        return Left(None, others)
    return Left(replace(own, bundle=replace(bundle, expires=own.lease.expires)), others)
