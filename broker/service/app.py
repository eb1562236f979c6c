"""Routes of the service: read a request, call the use-case, write the answer. No route decides anything."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Final, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from broker.errors import BrokerError, DeniedError, InputError, VaultUnavailableError
from broker.issuing.grant import Caller, Granted, Renewed, Wanted
from broker.model.duration import parse_duration
from broker.model.lease import LONGEST, Lease
from broker.model.names import account_name, checked_name
from broker.model.secret import Secret
from broker.partners.authentication import document_of
from broker.pki import keys
from broker.service import openapi
from broker.service.messages import BundleAnswer, BundleRequest, LeaseAnswer, LeaseRequest
from broker.service.problems import MEDIA_TYPE, RETRY_AFTER, STATUS, problem
from broker.telemetry import log

_Message = TypeVar("_Message")
Handler = Callable[[Request], Awaitable[Response]]
_JSON: Final = "application/json"
_BEARER: Final = "bearer "
_LARGEST: Final = 64 * 1024  # bytes of a body
_SECONDS: Final = 10.0  # to send it


class Bundles(Protocol):
    """Use-cases that the service offers. They raise `BrokerError`."""

    async def grant(self, caller: Caller, wanted: Wanted) -> Granted:
        """Return a bundle of the current generation."""

    async def renew(self, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        """Return the lease with a later end."""

    async def revoke(self, caller: Caller, lease_text: Secret[str]) -> Lease:
        """End the lease."""


def application(bundles: Bundles) -> Starlette:
    """Return the service as an ASGI application."""
    service = _Service(bundles)
    return Starlette(
        routes=[
            Route("/v1/bundles", service.answered(service.post_bundle), methods=["POST"]),
            Route("/v1/leases/renew", service.answered(service.renew), methods=["POST"]),
            Route("/v1/leases/revoke", service.answered(service.revoke), methods=["POST"]),
            Route("/openapi.json", service.answered(service.description), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _no_route},
    )


class _Service:
    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles

    def answered(self, handler: Handler) -> Handler:
        """Return `handler` with its errors turned into problem details, and a line in the log for each request."""

        async def answer(request: Request) -> Response:
            number = secrets.token_hex(8)
            log.bind(request=number)
            try:
                response = await handler(request)
            except BrokerError as error:
                response = _failed(error, number)
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it
            except Exception as fault:  # noqa: BLE001  # the service goes on
                log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))
                response = _failed(BrokerError("unexpected"), number)
            response.headers["x-request-id"] = number
            response.headers["cache-control"] = "no-store"
            log.info("request", method=request.method, path=request.url.path, status=response.status_code)
            return response

        return answer

    async def post_bundle(self, request: Request) -> Response:
        """Grant a bundle."""
        asked = await self._body(request, BundleRequest)
        caller = _caller(request)
        wanted = Wanted(
            account_name(asked.account),
            checked_name(asked.application, "application"),
            _ttl(asked.ttl),
            idempotency_key=request.headers.get("idempotency-key", ""),
        )
        log.bind(account=wanted.account, application=wanted.application)
        granted = await self._bundles.grant(caller, wanted)
        log.bind(lease=granted.lease.id, consumer=granted.consumer.name, generation=granted.lease.generation)
        return Response(msgspec.json.encode(_bundle(granted)), 201, media_type=_JSON)

    async def renew(self, request: Request) -> Response:
        """Renew a lease."""
        asked = await self._body(request, LeaseRequest)
        renewed = await self._bundles.renew(_caller(request), Secret(asked.lease), _ttl(asked.ttl))
        lease = renewed.lease
        log.bind(account=lease.account, lease=lease.id)
        answer = LeaseAnswer(
            lease=renewed.lease_text.reveal(),
            lease_id=lease.id,
            generation=lease.generation,
            expires=lease.expires,
            newer=renewed.newer,
        )
        return Response(msgspec.json.encode(answer), media_type=_JSON)

    async def revoke(self, request: Request) -> Response:
        """End a lease."""
        asked = await self._body(request, LeaseRequest)
        lease = await self._bundles.revoke(_caller(request), Secret(asked.lease))
        log.bind(account=lease.account, lease=lease.id)
        return Response(status_code=204)

    async def description(self, _request: Request) -> Response:
        """Return the OpenAPI description."""
        return Response(msgspec.json.encode(openapi.description()), media_type=_JSON)

    async def _body(self, request: Request, kind: type[_Message]) -> _Message:
        """Return the body as a message; raise `InputError` if it is none, too large, or too slow."""
        data = bytearray()
        try:
            async with asyncio.timeout(_SECONDS):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > _LARGEST:
                        raise InputError(f"the body is larger than {_LARGEST} bytes")
        except TimeoutError:
            raise InputError(f"the body did not arrive within {_SECONDS:g} s") from None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"the body is not valid: {error}", hint="GET /openapi.json describes it") from None


def _caller(request: Request) -> Caller:
    """Return the identity that the request shows; raise `DeniedError` if it shows none or two."""
    tokens = request.headers.getlist("x-vault-token")
    bearers = request.headers.getlist("authorization")
    if len(tokens) + len(bearers) != 1 or (bearers and not bearers[0].lower().startswith(_BEARER)):
        raise NoIdentityError
    peer = ip_address(request.client.host) if request.client else None
    if tokens:
        return Caller(Secret(tokens[0]), peer, is_jwt=False)
    return Caller(Secret(bearers[0][len(_BEARER) :].strip()), peer, is_jwt=True)


class NoIdentityError(DeniedError):
    """The request shows no identity, or more than one."""

    def __init__(self) -> None:
        super().__init__(
            "the request shows no identity",
            hint="send one header: X-Vault-Token: TOKEN, or Authorization: Bearer JWT",
        )


def _ttl(text: str) -> timedelta:
    return parse_duration(text) if text else LONGEST


def _bundle(granted: Granted) -> BundleAnswer:
    bundle, lease = granted.bundle, granted.lease
    return BundleAnswer(
        account=bundle.account,
        application=bundle.application,
        kind=lease.kind.value,
        generation=bundle.generation,
        lease=granted.lease_text.reveal(),
        lease_id=lease.id,
        expires=lease.expires,
        not_after=bundle.certificate.not_after,
        base_url=bundle.base_url,
        login=bundle.login,
        client_id=bundle.client_id,
        key=keys.pem(bundle.key).reveal().decode(),
        certificate=bundle.certificate.pem,
        trust=bundle.trust.pem,
        secrets={name: secret.reveal() for name, secret in bundle.secrets.items()},
        authentication=document_of(bundle.authentication),
    )


def _failed(error: BrokerError, number: str) -> Response:
    log.info("refused", code=error.kind.value, reason=error.message)
    status = 401 if isinstance(error, NoIdentityError) else STATUS[error.kind]
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004
    if status == STATUS[VaultUnavailableError.kind]:
        headers["retry-after"] = str(RETRY_AFTER)
    body = msgspec.json.encode(msgspec.structs.replace(problem(error, number), status=status))
    return Response(body, status, headers, media_type=MEDIA_TYPE)


async def _no_route(request: Request, error: Any) -> Response:
    """Answer a path or method that does not exist."""
    message = f"{request.method} is not allowed here" if error.status_code == 405 else "no such path"  # noqa: PLR2004
    number = secrets.token_hex(8)
    shown = problem(InputError(message, hint="GET /openapi.json describes the service"), number)
    body = msgspec.json.encode(msgspec.structs.replace(shown, status=error.status_code))
    return Response(body, error.status_code, error.headers, media_type=MEDIA_TYPE)
