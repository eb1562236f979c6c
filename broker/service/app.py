"""Routes of the service: read a request, call the use-case, write the answer. No route decides anything."""

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import UNSET

from broker.errors import BrokerError, BusyError, DeniedError, InputError, Kind
from broker.issuing.batch_issuer import Issued
from broker.issuing.grant import Renewed
from broker.model.bundle import Wanted
from broker.model.duration import parse_duration
from broker.model.holdings import NamedLease
from broker.model.lease import LONGEST, Caller, Consumer, Lease
from broker.model.names import NAME, AccountName
from broker.model.secret import Secret
from broker.service import openapi
from broker.service.answers import Contents, bundle_answer, files_answer
from broker.service.asgi import JSON, App, GoneError, Handler, Request, Response, Route, json_answer, routed
from broker.service.messages import LONGEST_KEY, BundleRequest, LeaseAnswer, LeaseRequest, RevokeRequest
from broker.service.problems import STATUS, UNAUTHORIZED, problem_answer
from broker.telemetry import log, metrics, trace
from broker.typed import from_json

Message = TypeVar("Message")
_BEARER: Final = "bearer "
_ONE_LEASE: Final = "one lease for all requests of GET"
_CLIENT_GONE: Final = 499  # nginx's code for the log; the client does not see it


class Bundles(Protocol):
    """Use-cases that the service offers. They raise `BrokerError`."""

    async def grant(self, caller: Caller, wanted: Wanted) -> Issued[Contents]:
        """Return a bundle of the current generation."""

    async def renew(self, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        """Return the lease with a later end."""

    async def revoke(self, caller: Caller, lease_text: Secret[str]) -> Lease:
        """End the lease."""

    async def revoke_named(self, caller: Caller, named: NamedLease) -> Consumer:
        """End a lease of the caller by its id."""


class NoIdentityError(DeniedError):
    """The request shows no identity, or more than one."""

    def __init__(self) -> None:
        super().__init__(
            "the request shows no identity, or two",
            hint="send one header: X-Vault-Token: TOKEN, or Authorization: Bearer JWT",
        )


def application(bundles: Bundles, more: Mapping[Route, Handler] = MappingProxyType({})) -> App:
    """Return the service as an ASGI application, with `more` routes."""
    service = _Service(bundles)
    handlers: dict[Route, Handler] = {
        **more,
        ("POST", "/v1/bundles"): service.post_bundle,
        ("GET", "/v1/bundles/*/*"): service.get_bundle,
        ("POST", "/v1/leases/renew"): service.renew,
        ("POST", "/v1/leases/revoke"): service.revoke,
        ("GET", "/openapi.json"): service.description,
    }
    answered = {(method, path): _answered(handler, path) for (method, path), handler in handlers.items()}
    return routed(answered, _missing)


class _Service:
    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles

    async def post_bundle(self, request: Request) -> Response:
        """Grant a bundle."""
        asked = decoded(await request.body(), BundleRequest)
        names = named(asked.account, asked.application)
        wanted = Wanted(*names, _ttl(asked.ttl), idempotency_key=_idempotency_key(request))
        return Response(201, bundle_answer(await self._issued(request, wanted)), JSON)

    async def get_bundle(self, request: Request) -> Response:
        """Grant a bundle as flat JSON, one value for each file, under the consumer's one lease for this purpose."""
        account, application = request.names
        wanted = Wanted(*named(account, application), LONGEST, idempotency_key=_ONE_LEASE)
        return Response(200, files_answer(await self._issued(request, wanted)), JSON)

    async def _issued(self, request: Request, wanted: Wanted) -> Issued[Contents]:
        log.bind(account=wanted.account, application=wanted.application)
        issued = await self._bundles.grant(caller_of(request), wanted)
        log.bind(consumer=issued.consumer.name)
        _bind(issued.lease)
        return issued

    async def renew(self, request: Request) -> Response:
        """Renew a lease."""
        asked = decoded(await request.body(), LeaseRequest)
        renewed = await self._bundles.renew(caller_of(request), Secret(asked.lease), _ttl(asked.ttl))
        lease = renewed.lease
        _bind(lease)
        answer = LeaseAnswer(
            lease=renewed.lease_text.reveal(),
            lease_id=lease.id,
            generation=lease.generation,
            expires=lease.expires,
            newer=renewed.newer,
        )
        return json_answer(answer)

    async def revoke(self, request: Request) -> Response:
        """End a lease."""
        asked, caller = decoded(await request.body(), RevokeRequest), caller_of(request)
        if (asked.lease is UNSET) == (asked.lease_id is UNSET):
            raise InputError("send either lease or lease_id", hint="lease_id needs account and application too")
        if isinstance(asked.lease, str):
            _bind(await self._bundles.revoke(caller, Secret(asked.lease)))
            return Response(204)
        named_lease = NamedLease(str(asked.lease_id), *named(asked.account, asked.application))
        log.bind(account=named_lease.account, application=named_lease.application, lease=named_lease.id)
        log.bind(entity=(await self._bundles.revoke_named(caller, named_lease)).entity)
        return Response(204)

    async def description(self, _request: Request) -> Response:
        """Return the OpenAPI description."""
        return json_answer(openapi.description())


def _bind(lease: Lease) -> None:
    """Name the lease in what is logged for this request; `entity` is its consumer's in Vault."""
    log.bind(
        account=lease.account,
        application=lease.application,
        generation=lease.generation,
        lease=lease.id,
        entity=lease.consumer,
    )


def _answered(handler: Handler, route: str) -> Handler:
    """Return `handler` with its errors turned into problem details, and each request counted and logged.

    The log has the route, not the path: a caller may have put anything there.
    """

    async def answer(request: Request) -> Response:
        began = time.monotonic()
        number = _begun(request)
        try:
            _require_no_query(request)
            response = await handler(request)
        except BrokerError as error:
            response = _failed(error, number)
        except asyncio.CancelledError:  # by `listeners`, which ends what is still open
            response = _failed(BusyError("this replica ends", hint="ask another one, or try again later"), number)
        except GoneError:
            response = Response(_CLIENT_GONE)
        except Exception as fault:  # noqa: BLE001  # the service goes on
            log.error("unexpected fault", type=type(fault).__name__, stack=log.frames(fault))
            response = _failed(BrokerError("unexpected"), number)
        _note(request, route, response.status, time.monotonic() - began)
        headers = {**response.headers, "x-request-id": number, "cache-control": "no-store"}
        return Response(response.status, response.body, headers, response.parts)

    return answer


def _require_no_query(request: Request) -> None:
    if request.has_query:
        raise InputError("no path takes a query", hint="GET /openapi.json describes the service")


def _begun(request: Request) -> str:
    """Return a number for the request; name it and its trace in this context."""
    number, parents = f"{random.getrandbits(64):016x}", request.headers("traceparent")  # no secret
    found = trace.continued(parents, request.headers("tracestate")) if parents else None
    trace.begin(found)
    log.bind(request=number, **({"trace": found.id, "span": found.span} if found else {}))
    return number


def _note(request: Request, route: str, status: int, seconds: float) -> None:
    metrics.request(route, status, seconds)
    if log.is_on(log.Level.INFO):
        log.info("request", method=request.method, route=route, status=status, milliseconds=round(seconds * 1000, 1))


def _missing(request: Request, status: int) -> Response:
    number = _begun(request)
    _note(request, "none", status, 0.0)
    message = "no such path" if status == 404 else f"{request.method} is not allowed here"  # noqa: PLR2004
    error = InputError(message, hint="GET /openapi.json describes the service")
    return problem_answer(error, status, number=number)


def _failed(error: BrokerError, number: str) -> Response:
    reason = {} if error.kind is Kind.INPUT else {"reason": error.message}  # it quotes what may be in the wrong field
    if isinstance(error, DeniedError):
        log.bind(**error.who)
    log.info("refused", code=error.kind.value, **reason)
    status = UNAUTHORIZED if isinstance(error, NoIdentityError) else STATUS[error.kind]
    headers = {"www-authenticate": "Bearer"} if status == UNAUTHORIZED else {}
    return problem_answer(error, status, headers, number)


def caller_of(request: Request) -> Caller:
    """Return the identity that the request shows; raise `NoIdentityError` if it shows none or two."""
    tokens, bearers = request.headers("x-vault-token"), request.headers("authorization")
    if len(tokens) + len(bearers) != 1 or (bearers and not bearers[0].lower().startswith(_BEARER)):
        raise NoIdentityError
    peer = _address(request.peer) if request.peer else None
    if tokens:
        return Caller(Secret(tokens[0]), peer)
    return Caller(Secret(bearers[0][len(_BEARER) :].strip()), peer, is_jwt=True)


def _idempotency_key(request: Request) -> str:
    """Return the key that the request names, "" if none; raise `InputError` if it names two, or a long one."""
    keys = request.headers("idempotency-key")
    if len(keys) > 1 or len("".join(keys)) > LONGEST_KEY:
        raise InputError(f"send one Idempotency-Key, of at most {LONGEST_KEY} characters")
    return "".join(keys)


def decoded(body: bytes, kind: type[Message]) -> Message:
    """Return the body as a message; raise `InputError`."""
    try:
        return from_json(body, kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"the body is not valid: {error}", hint="GET /openapi.json describes it") from None


@lru_cache(4096)
def _address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text)


@lru_cache
def named(account: str, application: str) -> tuple[AccountName, str]:
    """Return both names; raise `InputError`, which does not quote them: a secret may be in the wrong field."""
    for text, what in ((account, "account"), (application, "application")):
        if not NAME.fullmatch(text):
            raise InputError(f"the {what} is not a name", hint="use 1 to 63 of a-z, 0-9 and '-', first no '-'")
    return AccountName(account), application


@lru_cache
def _ttl(text: str) -> timedelta:
    try:
        return parse_duration(text) if text else LONGEST
    except InputError as error:
        raise InputError("the ttl is not a duration", hint=error.hint) from None
