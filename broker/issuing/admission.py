"""Bound the requests to Vault for callers without a known right: a flood of them stops nobody who has one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from broker.errors import BusyError, DeniedError

_KNOWN: Final = 20_000  # callers at most
Result = TypeVar("Result")


class Admission:
    """Callers by digest. A caller is known from a judgement in its favour until one against it.

    Of all others, `strangers` are judged at a time, and `waiting` wait.
    """

    def __init__(self, strangers: int, waiting: int) -> None:
        self._known: dict[bytes, None] = {}
        self._judged = asyncio.Semaphore(strangers)
        self._room = strangers + waiting

    async def admit(self, caller: bytes, judge: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `judge` returns; raise what it raises, `BusyError` if too many strangers wait."""
        try:
            result = await (judge() if caller in self._known else self._as_stranger(judge))
        except DeniedError:
            self._known.pop(caller, None)
            raise
        self._known.pop(caller, None)  # the newest stand last
        self._known[caller] = None
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        return result

    async def _as_stranger(self, judge: Callable[[], Awaitable[Result]]) -> Result:
        if not self._room:
            raise BusyError("too many callers without a known right wait for Vault")
        self._room -= 1
        try:
            async with self._judged:
                return await judge()
        finally:
            self._room += 1
