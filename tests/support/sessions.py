"""Sessions of every library behind one interface, so that a promise is shown of each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import broker.client
import broker.client.aiohttp
import broker.client.httpx

__all__ = ["CONNECTED", "HOLDING", "OPENED", "Calls"]


@dataclass(frozen=True, slots=True)
class Calls:
    """A session, whose calls block: `request` returns the status and the JSON of an answer."""

    session: Any
    request: Callable[..., tuple[int, Any]]
    pages: Callable[[str], list[dict[str, Any]]]

    def get(self, path: str = "/fleets") -> int:
        """Return the status of a GET."""
        return self.request("GET", path)[0]


@contextmanager
def _blocking(made: Callable[[], Any]) -> Iterator[Calls]:
    with made() as session:

        def request(method: str, path: str, **given: Any) -> tuple[int, Any]:
            answer = session.request(method, path, **given)
            return answer.status_code, answer.json() if answer.content else None

        yield Calls(session, request, lambda path: list(session.pages(path)))


@contextmanager
def _asynchronous(made: Callable[[], Any]) -> Iterator[Calls]:
    with _loop() as wait:
        session = made()

        async def request(method: str, path: str, **given: Any) -> tuple[int, Any]:
            answer = await session.request(method, path, **given)
            if isinstance(session, broker.client.aiohttp.Session):
                async with answer:
                    return answer.status, await answer.json() if await answer.read() else None
            return answer.status_code, answer.json() if answer.content else None

        async def pages(path: str) -> list[dict[str, Any]]:
            return [page async for page in session.pages(path)]

        try:
            yield Calls(session, lambda *a, **k: wait(request(*a, **k)), lambda path: wait(pages(path)))
        finally:
            wait(session.close() if isinstance(session, broker.client.aiohttp.Session) else session.aclose())


@contextmanager
def _loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Run an event loop in a thread; yield a function that waits for a coroutine in it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(200)
    finally:
        asyncio.run_coroutine_threadsafe(_transports_closed(loop), loop).result(200)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _transports_closed(loop: Any) -> None:
    """Wait for transports that were aborted: their ends are events of the loop. Its own pipe stays."""
    while len(loop._selector.get_map()) > 1:
        await asyncio.sleep(0.005)


Opener = Callable[..., AbstractContextManager[Calls]]
_KINDS: Final[dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]]] = {
    "requests": (_blocking, broker.client.open, broker.client.Session),
    "httpx": (_blocking, broker.client.httpx.open, broker.client.httpx.Client),
    "async-httpx": (_asynchronous, broker.client.httpx.open_async, broker.client.httpx.AsyncClient),
    "aiohttp": (_asynchronous, broker.client.aiohttp.open, broker.client.aiohttp.Session),
}


def _opener(called: Callable[..., Any], made: Callable[..., Any]) -> Opener:
    return lambda source, **options: called(lambda: made(source, **options))


OPENED: Final = {name: _opener(called, opened) for name, (called, opened, _) in _KINDS.items()}  # on a directory
HOLDING: Final = {name: _opener(called, made) for name, (called, _, made) in _KINDS.items()}  # on a follower
CONNECTED: Final = {  # on ACCOUNT/APPLICATION of a service
    "requests": _opener(_blocking, broker.client.connect),
    "httpx": _opener(_blocking, broker.client.httpx.connect),
    "aiohttp": _opener(_asynchronous, broker.client.aiohttp.connect),
}
