"""Errors that answers of Vault stand for.

Only statuses and known phrases decide. No text of Vault or of a library is passed on: it may quote a request.

    UnknownNameError: MissingError: GoneError
    DeniedError: BadTokenError
    InputError: UnmountedError
    VaultUnavailableError: PassingError
    VaultUnavailableError: UnclearError: OversizedError, InvalidError
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from broker.errors import (
    BrokerError,
    ConflictError,
    DeniedError,
    InputError,
    RefusedError,
    UnknownNameError,
    VaultUnavailableError,
)

__all__ = [
    "BadTokenError",
    "GoneError",
    "InvalidError",
    "MissingError",
    "OversizedError",
    "PassingError",
    "UnclearError",
    "UnmountedError",
    "fault",
]

_CAS_MISMATCH: Final = "did not match the current version"  # in a 400 without a code
_IN_USE: Final = "already in use"
_NO_ROUTE: Final = "no handler for route"
_NOT_ACTIVE: Final = "local node not active"  # a 500 during failover
_ROLLED_BACK: Final = "transaction commit failed"  # OpenBao, as a 500: a concurrent write; nothing was changed
_UPGRADING: Final = "Upgrading from non-versioned"  # KV v2, for a moment after it was mounted
_SEE: Final = "is it up and unsealed? ask: bao status, or vault status"
_WHERE: Final = "is this the right Vault, mount and namespace? run: broker doctor"
_LOG: Final = "see the log of Vault"
_BAD_TOKEN: Final = ("bad token", "invalid token")
_NOT_FOUND: Final = (404,)
_DENIED: Final = (401, 403)
_INVALID: Final = (400, 413)
_BUSY: Final = {
    412: "a standby has not yet seen our last write",
    429: "too many requests, or a standby",
    472: "a node of the disaster recovery site",
    473: "a performance standby",
    502: "error of a proxy before it",
    503: "it is sealed, or starting",
    504: "time-out of a proxy before it",
}


class MissingError(UnknownNameError):
    """Nothing is stored at this path, or not any more."""


class GoneError(MissingError):
    """The document at this path is deleted or destroyed, and Vault still has its metadata."""


class BadTokenError(DeniedError):
    """Vault does not know the token of a request: mistyped, expired or revoked."""


class UnmountedError(InputError):
    """Vault has no such mount: it was never set up for the broker, or the settings name another one."""


class PassingError(VaultUnavailableError):
    """Vault is away for a moment (sealed, standby, failing over, overloaded, not reached): retry."""

    def __init__(self, what: str, *, hint: str = "", wait: float = 0.0) -> None:
        super().__init__(what, hint=hint)
        self.wait = wait  # seconds that Vault asked for; 0 if it named none


class UnclearError(VaultUnavailableError):
    """An answer that Vault would not give. A retry would change nothing."""

    retryable: ClassVar[bool] = False


class OversizedError(UnclearError, RefusedError):
    """An answer that is larger, or nested deeper, than the broker reads: no Vault, or a document of others.

    It is a `RefusedError` too, so that a listing passes over such a document.
    """


class InvalidError(UnclearError):
    """Vault finds a request invalid, or the credentials of a login. Input of users is checked before."""


def fault(status: int, path: str, errors: Sequence[str], *, wait: float = 0.0, known: bool = False) -> BrokerError:
    """Return the error for an answer of `status` to a request for `path`.

    `errors` is Vault's list; `known` means that the answer has metadata of a deleted document.
    """
    said = " ".join(errors)
    if status in _NOT_FOUND:
        return _absent(path, said, known=known)
    if status in _DENIED:
        return _denied(path, said)
    if status in _INVALID:
        return _refused(path, said)
    if status in _BUSY:
        return PassingError(f"Vault did not serve {path}: {_BUSY[status]} ({status})", hint=_SEE, wait=wait)
    return _failed(status, path, said)


def _failed(status: int, path: str, said: str) -> BrokerError:
    if _NOT_ACTIVE in said:
        return PassingError(f"Vault is changing its active node ({path})", hint=_SEE)
    if _ROLLED_BACK in said:
        return PassingError(f"a concurrent write to {path}", hint="run the same command again")
    return UnclearError(f"Vault failed on {path} ({status})", hint=_LOG)


def _denied(path: str, said: str) -> BrokerError:
    if any(words in said for words in _BAD_TOKEN):
        return BadTokenError(f"Vault does not know the token of the request for {path}", hint="log in again")
    return DeniedError(f"Vault denies {path}", hint="is the token alive, of the right role and namespace?")


def _absent(path: str, said: str, *, known: bool) -> BrokerError:
    if known:
        return GoneError(f"the document at {path} is deleted or destroyed", hint=_WHERE)
    if _NO_ROUTE in said:
        return UnmountedError(f"nothing is mounted in this Vault for {path}", hint="run: broker vault setup")
    return MissingError(f"nothing is stored at {path}", hint=_WHERE)


def _refused(path: str, said: str) -> BrokerError:
    if _CAS_MISMATCH in said:
        return ConflictError(f"{path} changed meanwhile", hint="run the same command again")
    if _UPGRADING in said:
        return PassingError(f"the mount of {path} is being made", hint="run the same command again")
    if _IN_USE in said:
        return ConflictError(f"{path} is mounted already", hint="run the same command again")
    return InvalidError(f"Vault finds the request for {path} invalid, or too large", hint=_LOG)
