"""Answers for supervisors and load balancers, on an address of their own."""

from collections.abc import Callable

import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.errors import BrokerError

_SECONDS = 5.0


def health(check: Callable[[], None]) -> Starlette:
    """Return `/livez` (the process answers) and `/readyz` (`check` passes: bundles can be issued now)."""

    async def live(_request: Request) -> Response:
        return _answer(200, "ok")

    async def ready(_request: Request) -> Response:
        """Ask each time: readiness is computed, never remembered."""
        try:
            with anyio.fail_after(_SECONDS):
                await anyio.to_thread.run_sync(check, abandon_on_cancel=True)
        except TimeoutError:
            return _answer(503, "Vault did not answer within 5 s")
        except BrokerError as error:
            return _answer(503, error.message, error.hint)
        return _answer(200, "ok")

    return Starlette(routes=[Route("/livez", live), Route("/startz", ready), Route("/readyz", ready)])


def _answer(status: int, message: str, hint: str = "") -> Response:
    body = msgspec.json.encode({"ready": status == 200, "message": message, "hint": hint or None})  # noqa: PLR2004
    return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})
