"""Errors as HTTP answers: problem details (RFC 9457), with the same codes as `-o json` on the command line."""

import random
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from broker.errors import BrokerError, BusyError, DeniedError, Kind, VaultUnavailableError
from broker.service.asgi import Response
from broker.telemetry import metrics

MEDIA_TYPE: Final = "application/problem+json"
STATUS: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        Kind.UNEXPECTED: 500,
        Kind.INPUT: 400,
        Kind.UNKNOWN_NAME: 403,  # as DENIED: a caller without a right learns no names
        Kind.VAULT_UNAVAILABLE: 503,
        Kind.PARTNER_UNAVAILABLE: 502,
        Kind.MAIL_UNAVAILABLE: 502,
        Kind.DENIED: 403,
        Kind.REFUSED: 409,
        Kind.WAITING: 409,
        Kind.CONFLICT: 409,
        Kind.RATE: 429,
        Kind.STORAGE_FULL: 500,
    }
)
RETRY_AFTER: Final = {503: (2, 10), 429: (1, 3)}  # seconds, at random: callers do not all come back together
_DENIED: Final = DeniedError(
    "no right to this, or it does not exist", hint="ask the platform team: broker's log has the reason for this request"
)
_AWAY: Final = VaultUnavailableError(
    "Vault is away, or lacks what this request needs", hint="try again after the seconds of Retry-After"
)
UNAUTHORIZED: Final = 401


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Problem details of RFC 9457. `code` and `hint` are extensions."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None
    retryable: bool
    request: str


def problem(error: BrokerError, request: str, status: int) -> Problem:
    """Return `error` as the caller sees it: why it is denied, why Vault is away, and our own faults stay in the log."""
    shown = error
    if error.kind in (Kind.DENIED, Kind.UNKNOWN_NAME) and status != UNAUTHORIZED:
        shown = _DENIED
    elif error.kind is Kind.VAULT_UNAVAILABLE and not isinstance(error, BusyError):
        shown = _AWAY
    elif error.kind is Kind.UNEXPECTED:
        shown = BrokerError("a fault in the broker itself", hint="the broker's log has it under this request's id")
    return Problem(
        type=f"urn:credential-broker:problem:{shown.kind.value}",
        title=shown.kind.value.replace("-", " "),
        status=status,
        detail=shown.message,
        code=shown.kind.value,
        hint=shown.hint or None,
        retryable=shown.retryable,
        request=request,
    )


def problem_answer(
    error: BrokerError, status: int, headers: Mapping[str, str] = MappingProxyType({}), number: str = ""
) -> Response:
    """Return `error` as an answer to the request `number`, or to one that got none yet."""
    more = {"content-type": MEDIA_TYPE, **headers}
    if status in RETRY_AFTER:
        more["retry-after"] = str(random.randint(*RETRY_AFTER[status]))  # noqa: S311  # no secret
    shown = problem(error, number or secrets.token_hex(8), status)
    metrics.refusal(status, shown.code)
    body = msgspec.json.encode(shown)
    return Response(status, body, more)
