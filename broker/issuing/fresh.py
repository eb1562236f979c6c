"""Values for the event loop that were read a moment ago: one read at a time for a key, and no value without an end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Final, Generic, TypeVar

from msgspec import Struct

from broker.errors import DeniedError
from broker.model.bounded import Bounded

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
_KEPT: Final = 20_000  # values at most, and as many denials
_BEHIND: Final = 3 / 4  # of the limit


class Denial(Struct, frozen=True):
    """The words of a denial. The error itself is not kept: its traceback holds all that was in a request."""

    message: str
    hint: str
    who: Mapping[str, str]

    def error(self) -> DeniedError:
        """Return it as an error."""
        made = DeniedError(self.message, hint=self.hint)
        made.who = self.who
        return made


class Loaded(Struct, Generic[Value], frozen=True):
    """A value, or the denial in its place, and the uptime at which its reading began."""

    value: Value | Denial
    at: float


class Fresh(Generic[Key, Value]):
    """A cache. A value is at most `seconds` old; from three quarters of that on it is read again in the background.

    `as_of` returns when the value of a key was last known to be as it was at its reading.
    What loads raises `BrokerError`. Denials are kept as values are, but not beyond their age; no other error is kept.
    """

    def __init__(
        self,
        seconds: float,
        uptime: Callable[[], float] = time.monotonic,
        as_of: Callable[[Key, float], float] = lambda _, at: at,
    ) -> None:
        self._seconds = seconds
        self._uptime = uptime
        self._as_of = as_of
        self._kept: Bounded[Key, Loaded[Value]] = Bounded(_KEPT)
        self._denied: Bounded[Key, Loaded[Value]] = Bounded(_KEPT)
        self._loading: dict[Key, asyncio.Task[Loaded[Value]]] = {}

    async def get(self, key: Key, load: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of `key`, which `load` reads; raise what it raised."""
        kept = self._kept.get(key) or self._denied.get(key)
        age = self._uptime() - self._as_of(key, kept.at) if kept else self._seconds
        if kept is None or age >= self._seconds:
            kept = await asyncio.shield(self._task(key, load))
        elif age >= self._seconds * _BEHIND:
            self._task(key, load)
        if isinstance(kept.value, Denial):
            raise kept.value.error()
        return kept.value

    def last(self, key: Key) -> Value | None:
        """Return the newest value, however old it is; None if there is none."""
        kept = self._kept.get(key)
        return None if kept is None or isinstance(kept.value, Denial) else kept.value

    def forget(self, key: Key) -> None:
        """Read the value again when it is next asked for."""
        self._drop(key)
        self._loading.pop(key, None)  # what is being read may be the older value: it is not kept

    def _task(self, key: Key, load: Callable[[], Awaitable[Value]]) -> asyncio.Task[Loaded[Value]]:
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._read(key, load))
            task.add_done_callback(_retrieved)
        return task

    async def _read(self, key: Key, load: Callable[[], Awaitable[Value]]) -> Loaded[Value]:
        at = self._uptime()
        try:
            loaded: Loaded[Value] = Loaded(await load(), at)
        except DeniedError as error:
            loaded = Loaded(Denial(error.message, error.hint, error.who), at)
        finally:
            is_newest = self._loading.get(key) is asyncio.current_task()
            if is_newest:
                del self._loading[key]
        if not is_newest:
            return loaded
        self._keep(key, loaded)
        return loaded

    def _keep(self, key: Key, loaded: Loaded[Value]) -> None:
        self._drop(key)
        among = self._denied if isinstance(loaded.value, Denial) else self._kept
        among[key] = loaded
        too_old = self._uptime() - self._seconds
        while self._denied and self._denied[next(iter(self._denied))].at <= too_old:
            del self._denied[next(iter(self._denied))]

    def _drop(self, key: Key) -> None:
        self._kept.pop(key, None)
        self._denied.pop(key, None)


def _retrieved(done: asyncio.Task[Loaded[Value]]) -> None:
    """Take the error of a background read: the next `get` reads again, and raises it."""
    if not done.cancelled():
        done.exception()
