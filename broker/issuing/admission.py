"""Bound the requests to Vault for callers without a known right: a flood of them stops nobody who has one."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final, TypeVar

from broker.errors import BusyError, DeniedError
from broker.model.bounded import Bounded

_KNOWN: Final = 20_000  # callers at most
Result = TypeVar("Result")


class Admission:
    """Callers by digest. A caller is known from a judgement in its favour until one against it.

    Of all others, `strangers` are judged at a time, and `waiting` wait. Half of the places at most are for those of one
    group: an issuer whose logins take long keeps no stranger of another one waiting.
    """

    def __init__(self, strangers: int, waiting: int) -> None:
        self._known: Bounded[bytes, None] = Bounded(_KNOWN)
        self._judged = asyncio.Semaphore(strangers)
        self._of_group: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(max(1, strangers // 2)))
        self._room = strangers + waiting

    async def admit(self, caller: bytes, judge: Callable[[], Awaitable[Result]], group: str = "") -> Result:
        """Return what `judge` returns; raise what it raises, `BusyError` if too many strangers wait.

        There are few groups; "" is none.
        """
        try:
            result = await (judge() if caller in self._known else self._as_stranger(judge, group))
        except DeniedError:
            self._known.pop(caller, None)
            raise
        self._known[caller] = None
        return result

    async def _as_stranger(self, judge: Callable[[], Awaitable[Result]], group: str) -> Result:
        if not self._room:
            raise BusyError("too many callers without a known right wait for Vault")
        self._room -= 1
        try:
            async with self._of_group[group] if group else nullcontext(), self._judged:
                return await judge()
        finally:
            self._room += 1
