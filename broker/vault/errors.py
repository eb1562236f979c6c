"""What an answer of Vault means.

Only statuses and known phrases decide. No text of Vault or of a library is passed on: it may quote a request.
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

_CAS_MISMATCH: Final = "did not match the current version"  # Vault answers a bare 400; only the words tell
_IN_USE: Final = "already in use"
_NO_ROUTE: Final = "no handler for route"
_NOT_ACTIVE: Final = "local node not active"  # a 500 during failover
_ROLLED_BACK: Final = "transaction commit failed"  # OpenBao, as a 500: another wrote there at once; nothing was changed
_UPGRADING: Final = "Upgrading from non-versioned"  # KV v2, for a moment after it was mounted
_SEE: Final = "is it up and unsealed? ask: bao status, or vault status"
_WHERE: Final = "is this the right Vault, mount and namespace? broker doctor"
_LOG: Final = "Vault's own log says why"
_BAD_TOKEN: Final = ("bad token", "invalid token")
_NOT_FOUND: Final = (404,)
_DENIED: Final = (401, 403)
_INVALID: Final = (400, 413)
_BUSY: Final = {
    412: "a standby has not yet seen our last write",
    429: "too many requests, or a standby",
    472: "a node of the disaster recovery site",
    473: "a performance standby",
    502: "a proxy before it",
    503: "it is sealed, or starting",
    504: "a proxy before it gave up",
}


class MissingError(UnknownNameError):
    """Nothing is stored at this path, or no longer."""


class GoneError(MissingError):
    """What was stored at this path is deleted or destroyed, and Vault still knows that it was there."""


class BadTokenError(DeniedError):
    """Vault does not know the token that was shown to it: mistyped, expired or revoked."""


class UnmountedError(InputError):
    """This Vault has no such mount: it was never set up for the broker, or the settings name another one."""


class PassingError(VaultUnavailableError):
    """Vault is away for a moment (sealed, standby, failing over, overloaded, not reached): ask again."""

    def __init__(self, what: str, *, hint: str = "", wait: float = 0.0) -> None:
        super().__init__(what, hint=hint)
        self.wait = wait  # seconds that Vault asked for; 0 where it named none


class UnclearError(VaultUnavailableError):
    """Something answered, but not as Vault does. To ask again would change nothing."""

    retryable: ClassVar[bool] = False


class OversizedError(UnclearError, RefusedError):
    """An answer is larger, or nested deeper, than the broker reads: no Vault, or a document that no broker wrote.

    It is a `RefusedError` too, so that one such document is passed over among others.
    """


class InvalidError(UnclearError):
    """Vault finds a request invalid; at a login, what one logs in with. What users type is judged before."""


def fault(status: int, path: str, errors: Sequence[str], *, wait: float = 0.0, known: bool = False) -> BrokerError:
    """Return the error that an answer of `status` to a request for `path` stands for.

    `errors` is Vault's list; `known` says that the answer tells of what was there and is no longer.
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
        return PassingError(f"others write to {path} at the same time")
    return UnclearError(f"Vault failed on {path} ({status})", hint=_LOG)


def _denied(path: str, said: str) -> BrokerError:
    if any(words in said for words in _BAD_TOKEN):
        return BadTokenError(f"Vault does not know the token shown for {path}", hint="log in again")
    return DeniedError(f"Vault denies {path}", hint="is the token alive, of the right role and namespace?")


def _absent(path: str, said: str, *, known: bool) -> BrokerError:
    if known:
        return GoneError(f"what was stored at {path} is deleted or destroyed", hint=_WHERE)
    if _NO_ROUTE in said:
        return UnmountedError(f"nothing is mounted in this Vault for {path}", hint="run: broker vault setup")
    return MissingError(f"nothing is stored at {path}", hint=_WHERE)


def _refused(path: str, said: str) -> BrokerError:
    if _CAS_MISMATCH in said:
        return ConflictError(f"{path} changed meanwhile")
    if _UPGRADING in said:
        return PassingError(f"the mount of {path} is just being made")
    if _IN_USE in said:
        return ConflictError(f"something is mounted already for {path}")
    return InvalidError(f"Vault finds the request for {path} invalid, or too large", hint=_LOG)
