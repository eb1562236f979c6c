"""Answers for supervisors and load balancers, on an address of their own."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from broker.errors import BrokerError
from broker.service.asgi import App, Request, Response, routed

_SECONDS: Final = 5.0


def health(check: Callable[[], None]) -> App:
    """Return `/livez` (the process answers), `/readyz` and `/startz` (`check` passes: bundles can be issued now)."""

    async def live(_request: Request) -> Response:
        return _answer(200, "ok")

    async def ready(_request: Request) -> Response:
        """Ask each time: readiness is computed, never remembered."""
        try:
            async with asyncio.timeout(_SECONDS):
                await asyncio.to_thread(check)
        except TimeoutError:
            return _answer(503, f"Vault did not answer within {_SECONDS:g} s")
        except BrokerError as error:
            return _answer(503, error.message, error.hint)
        return _answer(200, "ok")

    routes = {("GET", "/livez"): live, ("GET", "/startz"): ready, ("GET", "/readyz"): ready}
    return routed(routes, lambda _, status: _answer(status, "ask for /livez, /readyz or /startz"))


def _answer(status: int, message: str, hint: str = "") -> Response:
    body = msgspec.json.encode({"ready": status == 200, "message": message, "hint": hint or None})  # noqa: PLR2004
    return Response(status, body, {"content-type": "application/json", "cache-control": "no-store"})
