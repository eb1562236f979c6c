"""Exchanges of an event loop (asyncio) with the set in use."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from broker.upstream.current import Current, Rejection, Use, W, may_repeat

A = TypeVar("A")


class Loop:
    """The event loop that a session runs in. Its connections are closed there, for any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def enter(self) -> None:
        """Note the loop."""
        self._loop = asyncio.get_running_loop()

    def close(self, closing: Callable[[], Awaitable[None]]) -> None:
        """Have `closing` run in the loop."""
        if self._loop:
            with suppress(RuntimeError):  # the loop has ended, and its connections with it
                self._loop.call_soon_threadsafe(self._begin, closing)

    async def closed(self) -> None:
        """Return when everything is closed that is to be closed by now."""
        await asyncio.sleep(0)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _begin(self, closing: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.get_running_loop().create_task(_run(closing))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _run(closing: Callable[[], Awaitable[None]]) -> None:
    await closing()


async def exchanged(
    current: Current[W],
    attempt: Callable[[Use[W]], Awaitable[tuple[A, Rejection]]],
    method: str,
    body: bytes | None,
    close: Callable[[A], Awaitable[None]],
) -> A:
    """Return what `attempt` makes of a request; if the partner rejected the set, once more with a newer one.

    `attempt` gives the set back when the exchange is over, which an open answer is not. `close` gets an answer that is
    not used.
    """
    use = current.lend()
    found, rejection = await attempt(use)
    if rejection is Rejection.NONE:
        current.forget_rejections()
        return found
    if not await asyncio.to_thread(current.has_newer, use):
        return found
    if may_repeat(rejection, method, body):
        await close(found)
        found, _ = await attempt(current.lend())
    return found
