"""Answers for supervisors, load balancers and Prometheus, on an address of their own.

Readiness is computed when it is asked for, and never remembered for longer than a second: then one check serves all
who ask meanwhile, so that a prober makes no load for Vault. So are metrics.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from broker.errors import BrokerError, InputError, RefusedError, UnknownNameError, VaultUnavailableError
from broker.model.bounded import Bounded
from broker.model.names import AccountName, account_name
from broker.service.asgi import JSON, App, Request, Response, routed
from broker.telemetry import log

_SECONDS: Final = 5.0  # that a prober waits
_FRESH: Final = 1.0  # seconds that a result serves
_KEYS: Final = 1000  # results in memory
_CHECKS: Final = 2  # with Vault; others wait for them
_PATHS: Final = "ask for /livez, /readyz, /readyz/ACCOUNT, /startz or /metrics"
_OK: Final = 200
_METRICS: Final = {"content-type": "text/plain; version=0.0.4; charset=utf-8", "cache-control": "no-store"}


class Watched(Struct, frozen=True):
    """What is asked in threads: checks raise `BrokerError`."""

    check: Callable[[], None]
    check_account: Callable[[AccountName], None]
    metrics: Callable[[], bytes]


class _Checks:
    """Results of checks by key, None for success."""

    def __init__(self) -> None:
        self._kept: Bounded[str, tuple[float, BrokerError | None]] = Bounded(_KEYS)
        self._running: dict[str, asyncio.Task[BrokerError | None]] = {}
        self._turn = asyncio.Semaphore(_CHECKS)

    async def failure(self, key: str, check: Callable[[], None]) -> BrokerError | None:
        """Return what is wrong; a check that takes long goes on, for the next request."""
        at, failed = self._kept.get(key, (0.0, None))
        if at and time.monotonic() - at < _FRESH:
            return failed
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= _KEYS:
                return VaultUnavailableError("too many checks wait for Vault")
            task = self._running[key] = asyncio.create_task(self._run(key, check))
        try:
            async with asyncio.timeout(_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError:
            return VaultUnavailableError(f"Vault did not answer within {_SECONDS:g} s")

    async def _run(self, key: str, check: Callable[[], None]) -> BrokerError | None:
        failed: BrokerError | None = None
        try:
            async with self._turn:
                at = time.monotonic()
                await asyncio.to_thread(check)
        except BrokerError as error:
            failed = _shown(error)
        finally:
            del self._running[key]
        self._kept[key] = (at, failed)
        return failed


def health(watched: Watched) -> App:
    """Return the routes.

    `/livez`: the process answers. `/readyz`: bundles can be issued now. `/readyz/ACCOUNT`: those of this account, too.
    `/startz`: bundles could be issued once. `/metrics`: numbers.
    """
    checks, started = _Checks(), asyncio.Event()
    scraping, scraped = asyncio.Lock(), (-_FRESH, b"")

    async def live(_request: Request) -> Response:
        return _answer(_OK, "ok")

    async def ready(_request: Request) -> Response:
        failed = await checks.failure("", watched.check)
        if failed:
            return _failed(failed)
        started.set()
        return _answer(_OK, "ok")

    async def start(request: Request) -> Response:
        return _answer(_OK, "ok") if started.is_set() else await ready(request)

    async def account_ready(request: Request) -> Response:
        try:
            name = account_name(request.names[0])
        except InputError as error:
            return _answer(404, error.message, error.hint)
        failed = await checks.failure(name, lambda: watched.check_account(name))
        return _failed(failed) if failed else _answer(_OK, "ok")

    async def metrics(_request: Request) -> Response:
        nonlocal scraped
        async with scraping:
            if time.monotonic() - scraped[0] >= _FRESH:
                text = await asyncio.to_thread(watched.metrics)
                scraped = time.monotonic(), text
        return Response(_OK, scraped[1], _METRICS)

    handlers = {
        ("GET", "/livez"): live,
        ("GET", "/startz"): start,
        ("GET", "/readyz"): ready,
        ("GET", "/readyz/*"): account_ready,
        ("GET", "/metrics"): metrics,
    }
    return routed(handlers, lambda _, status: _answer(status, _PATHS))


def _shown(error: BrokerError) -> BrokerError:
    """Return what everybody may see of an error: not where Vault is, nor how the broker logs in there."""
    if isinstance(error, RefusedError | UnknownNameError):
        return error
    log.info("not ready", reason=error.message, hint=error.hint)
    return VaultUnavailableError("Vault is away, or gives the broker less than it needs", hint="its log says why")


def _failed(error: BrokerError) -> Response:
    return _answer(404 if isinstance(error, UnknownNameError) else 503, error.message, error.hint)


def _answer(status: int, message: str, hint: str = "") -> Response:
    body = msgspec.json.encode({"ready": status == _OK, "message": message, "hint": hint or None})
    return Response(status, body, {**JSON, "cache-control": "no-store"})
