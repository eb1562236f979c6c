"""The route for waits: an answer that goes on until something happens, kept open by blanks."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, Protocol

import msgspec

from broker.issuing.waits import Asked, Wait
from broker.model.lease import Caller
from broker.model.secret import Secret
from broker.service.app import caller_of, decoded, named
from broker.service.asgi import JSON, Handler, Request, Response
from broker.service.messages import WaitAnswer, WaitRequest
from broker.telemetry import log

HEARTBEAT: Final = 20.0  # seconds between two blanks; common proxies cut a connection that is idle for 60
_HEADERS: Final = {**JSON, "x-accel-buffering": "no"}  # the second is for nginx


class Waiting(Protocol):
    """Use-case of the service. It raises `BrokerError`."""

    async def begin(self, caller: Caller, asked: Asked) -> Wait:
        """Return a new wait."""

    def close(self, wait: Wait) -> None:
        """Forget it."""


def waiting(waits: Waiting) -> Handler:
    """Return the handler of a wait."""

    async def post_wait(request: Request) -> Response:
        message = decoded(await request.body(), WaitRequest)
        asked = Asked(
            *named(message.account, message.application),
            message.generation,
            Secret(message.lease) if message.lease else None,
        )
        log.bind(account=asked.account, application=asked.application)
        wait = await waits.begin(caller_of(request), asked)
        log.bind(consumer=wait.consumer.name)
        parts = _parts(waits, wait)
        await anext(parts)
        return Response(200, headers=_HEADERS, parts=parts)

    return post_wait


async def _parts(waits: Waiting, wait: Wait) -> AsyncGenerator[bytes, None]:
    """Yield a blank now and then, which JSON allows before a value, and the answer at last."""
    try:
        yield b""  # for the caller: only a generator that has begun forgets the wait when it is closed
        while not wait.over.done():
            yield b" "
            await asyncio.wait([wait.over], timeout=HEARTBEAT)
        over = wait.over.result()
        log.info("wait is over", event_seen=over.event.value, generation=over.generation)
        yield msgspec.json.encode(WaitAnswer(event=over.event.value, generation=over.generation))
    finally:
        waits.close(wait)
