"""Answers of Vault over HTTP: their content, or the error that they stand for.

They are parsed with suspicion: they may come from a proxy, a portal, or a server that died. Only statuses and known
phrases decide. No text of Vault or of a library is passed on: it may quote a request.

    UnknownNameError: MissingError: GoneError
    DeniedError: BadTokenError, OwnDenialError (LackingError)
    InputError: UnmountedError
    VaultUnavailableError: PassingError
    VaultUnavailableError: UnclearError: OversizedError, InvalidError
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Final

from broker.errors import (
    BrokerError,
    ConflictError,
    DeniedError,
    InputError,
    RefusedError,
    UnknownNameError,
    VaultUnavailableError,
)
from broker.model.clock import system_clock
from broker.network import retry_after

Document = Mapping[str, Any]

NO_VAULT: Final = "is it a Vault? check VAULT_ADDR"
_UP: Final = "is it up, initialised and unsealed? broker vault status"
_WHERE: Final = "is this the right Vault, mount and namespace? run: broker doctor"
_SETUP: Final = "run: broker vault setup"
_AGAIN: Final = "run the same command again"
_RIGHTS: Final = "a proxy before Vault may deny it; broker config show names the address and its source"
_LOG: Final = "see the log of Vault"
_UNKNOWN: Final = "Vault does not know the token of the request for {path}"
_BUSY: Final = "Vault did not serve {path} ({status}): "


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `headers` ignores the case of names."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class MissingError(UnknownNameError):
    """Nothing is stored at this path, or not any more."""


class GoneError(MissingError):
    """The document at this path is deleted or destroyed, and Vault still has its metadata."""


class BadTokenError(DeniedError):
    """Vault does not know the token of a request: mistyped, expired or revoked."""


class OwnDenialError(DeniedError):
    """Vault denies a request of the broker itself, not of its caller."""


class LackingError(OwnDenialError):
    """The policies of the token that was sent lack a capability."""


class UnmountedError(InputError):
    """Vault has no such mount: it was never set up for the broker, or the settings name another one."""


class PassingError(VaultUnavailableError):
    """Vault is away for a moment (sealed, standby, failing over, overloaded, not reached): retry."""

    wait: float = 0.0  # seconds that Vault asked for; 0 if it named none


class UnclearError(VaultUnavailableError):
    """An answer that Vault would not give. A retry would change nothing."""

    retryable: ClassVar[bool] = False


class OversizedError(UnclearError, RefusedError):
    """An answer that is larger, or nested deeper, than the broker reads: no Vault, or a document of others.

    It is a `RefusedError` too, so that a listing passes over such a document.
    """


class InvalidError(UnclearError):
    """Vault finds a request invalid, or the credentials of a login. Input of users is checked before."""


# Statuses (none: any), a phrase in Vault's errors, and the error with message and hint: the first match counts
_FAULTS: Final[tuple[tuple[tuple[int, ...], str, type[BrokerError], str, str], ...]] = (
    ((412,), "", PassingError, f"{_BUSY}a standby has not yet seen our last write", _UP),
    ((429,), "", PassingError, f"{_BUSY}too many requests, or a standby", _UP),
    ((472,), "", PassingError, f"{_BUSY}a node of the disaster recovery site", _UP),
    ((473,), "", PassingError, f"{_BUSY}a performance standby", _UP),
    ((502, 504), "", PassingError, f"{_BUSY}error or time-out of a proxy before it", _UP),
    ((503,), "", PassingError, f"{_BUSY}it is sealed, not initialised, or starting", _UP),
    ((404,), "no handler for route", UnmountedError, "nothing is mounted in Vault for {path}", _SETUP),
    ((404,), "", MissingError, "nothing is stored at {path}", _WHERE),
    ((401, 403), "bad token", BadTokenError, _UNKNOWN, "log in again"),
    ((401, 403), "invalid token", BadTokenError, _UNKNOWN, "log in again"),
    ((401, 403), "", DeniedError, "Vault denies {path}", _RIGHTS),
    ((400, 413), "did not match the current version", ConflictError, "{path} changed meanwhile", _AGAIN),
    ((400, 413), "from non-versioned", PassingError, "the mount of {path} is being made", _AGAIN),  # standbys, too
    ((400, 413), "already in use", ConflictError, "{path} is mounted already", _AGAIN),
    ((400, 413), "", InvalidError, "Vault finds the request for {path} invalid, or too large", _LOG),
    ((), "local node not active", PassingError, "Vault is changing its active node ({path})", _UP),
    # OpenBao: a concurrent write; nothing was changed
    ((), "transaction commit failed", PassingError, "others write to {path} at the same time", _AGAIN),
    ((), "", UnclearError, "Vault failed on {path} ({status})", _LOG),
)


def understood(answer: Answer, path: str) -> Document:
    """Return the content of a good answer, empty if it has no body; raise the error for a bad one."""
    content = _json(answer, path)
    if answer.status < HTTPStatus.BAD_REQUEST:
        if answer.body and content is None:
            raise unclear(path)
        return content or {}
    raise _fault(answer, content or {}, path)


def field_of(answer: Document, *names: str) -> Any:
    """Return the value in `answer` at the nested `names`; None if there is none."""
    found: Any = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def names_in(answer: Document, path: str) -> tuple[str, ...]:
    """Return the names in the answer to a LIST; raise `UnclearError`."""
    names = field_of(answer, "data", "keys")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise unclear(path)
    return tuple(names)


def unclear(path: str) -> BrokerError:
    """Return the error for an answer that Vault would not give."""
    return UnclearError(f"the answer for {path} is not from a Vault, or damaged", hint="check VAULT_ADDR")


def _json(answer: Answer, path: str) -> Document | None:
    """Return the object in `answer`, None if it is no JSON object."""
    try:
        content = json.loads(answer.body)
    except RecursionError:
        raise OversizedError(f"the answer for {path} is nested too deeply", hint=NO_VAULT) from None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _fault(answer: Answer, content: Document, path: str) -> BrokerError:
    status, said = answer.status, str(content.get("errors"))
    if status == HTTPStatus.NOT_FOUND and not {"errors", "data"} & set(content):
        return unclear(path)  # of a web server: Vault sends JSON, and nothing else may mean "nothing stored"
    if status == HTTPStatus.NOT_FOUND and field_of(content, "data", "metadata") is not None:
        return GoneError(f"the document at {path} is deleted or destroyed", hint=_WHERE)
    _, _, kind, message, hint = next(f for f in _FAULTS if (not f[0] or status in f[0]) and f[1] in said)
    error = kind(message.format(path=path, status=status), hint=hint)
    if isinstance(error, PassingError):
        error.wait = retry_after(answer.headers.get("Retry-After", ""), system_clock()) or 0
    return error
