"""Follow a bundle, so that a session always holds the newest set."""

import os
import threading
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from broker.client.published import Published, read, resolved
from broker.delivery.directory import CURRENT
from broker.errors import InputError, RefusedError
from broker.model.bundle import Manifest
from broker.model.proxy import proxy_of
from broker.upstream.credentials import Credentials
from broker.upstream.current import Current

CHECK_EVERY: Final = 1.0  # seconds between two reads of the link `current`


class Follower(Protocol):
    """Where a session's sets come from: a directory, or the service."""

    @property
    def credentials(self) -> Credentials:
        """The set to begin with."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation in use."""

    @property
    def withdrawn(self) -> bool:
        """Whether the bundle is gone. The program should then stop using it."""

    def begin(self, current: Current[Any]) -> None:
        """Keep `current` at the newest set, from a thread that ends with the process."""

    def follow(self) -> bool:
        """Swap to the newest set; return whether it is another one. Raise `BrokerError`."""

    def check(self) -> None:
        """Look for news, if that has not been done for a while."""

    def end(self) -> None:
        """Follow no more, and give back what was lent. A second call does nothing."""


class Following:
    """The part of a session, of any library, that follows a bundle."""

    current: Current[Any]
    _follower: Follower

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation in use."""
        return self._follower.manifest

    @property
    def withdrawn(self) -> bool:
        """Return whether the bundle is gone. The program should then stop using it."""
        return self._follower.withdrawn

    def follow(self) -> bool:
        """Switch to the current generation; return whether it is another than before.

        Raise `NothingPublishedError` if there is none, `InputError` if it cannot be read.
        """
        return self._follower.follow()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a session holds secrets, so it cannot be pickled or copied")

    def _begin(self, follower: Follower) -> None:
        self._follower = follower
        follower.begin(self.current)
        weakref.finalize(self, follower.end)  # also at the exit of the program


class Directory:
    """Follows the bundle that is published in a directory. `proxy` and `proxy_login` are those of `open`."""

    def __init__(self, directory: str | Path, proxy: str, proxy_login: str) -> None:
        self._root = Path(directory)
        self._proxy = proxy_of(proxy, proxy_login) if proxy else None
        self._published = read(self._root, proxy=self._proxy)
        self._checked = time.monotonic()
        self._switching = threading.Lock()
        self._ended = threading.Event()

    @property
    def credentials(self) -> Credentials:
        """The set to begin with."""
        return self._published.credentials

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation in use."""
        return self._published.manifest

    @property
    def withdrawn(self) -> bool:
        """Whether the bundle is gone from its directory."""
        return not os.path.islink(self._root / CURRENT)  # noqa: PTH114  # Path.is_symlink raises without permission

    def begin(self, current: Current[Any]) -> None:
        """Read the link now and then."""
        self._current = current
        current.ask = self.follow
        threading.Thread(target=self._watch, name="bundle", daemon=True).start()

    def follow(self) -> bool:
        """Switch to the current generation; return whether it is another than before.

        Raise `NothingPublishedError` if there is none, `InputError` if it cannot be read.
        """
        with self._switching:
            self._checked = time.monotonic()
            if resolved(self._root) == self._published.path:
                return False
            self._use(read(self._root, proxy=self._proxy))
            return True

    def check(self) -> None:
        """Switch to the current generation, at most once a second."""
        if time.monotonic() - self._checked >= CHECK_EVERY:
            try:
                with suppress(InputError):  # the set in use may still work; a second later this is tried again
                    self.follow()
            except RefusedError as error:
                self._current.end(error)  # the bundle of another account

    def end(self) -> None:
        """Read the link no more."""
        self._ended.set()

    def _use(self, published: Published) -> None:
        self._current.swap(published.credentials)
        self._published = published

    def _watch(self) -> None:
        while not self._ended.wait(CHECK_EVERY):
            self.check()
            if self.withdrawn or self._current.credentials.has_expired(datetime.now(UTC)):
                self._current.rest()
