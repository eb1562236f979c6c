"""Errors, as a user meets them.

    BrokerError                   `message` says what is wrong, `hint` what to do
    ├── InputError                an argument, a setting or a file cannot be used
    │   └── UnknownNameError      nothing has this name
    ├── VaultUnavailableError     Vault gave no answer, or no usable one; a retry may help
    ├── PartnerUnavailableError   the partner gave no answer
    ├── DeniedError               an identity may not do this
    ├── RefusedError              a rule of ours, a check, or the partner says no
    ├── WaitingError              a person or an application must act first
    └── ConflictError             a concurrent change came first

A room derives its own errors from these, beside the code that raises them. The tree knows neither exit codes nor
HTTP: `cli/exits.py` holds the table of exit codes, and a test walks `Kind` through it.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

__all__ = [
    "BrokerError",
    "ConflictError",
    "DeniedError",
    "InputError",
    "Kind",
    "PartnerUnavailableError",
    "RefusedError",
    "UnknownNameError",
    "VaultUnavailableError",
    "WaitingError",
]


class Kind(Enum):
    """Kinds of errors that a caller can act upon."""

    UNEXPECTED = "unexpected"
    INPUT = "input"
    UNKNOWN_NAME = "unknown-name"
    VAULT_UNAVAILABLE = "vault-unavailable"
    PARTNER_UNAVAILABLE = "partner-unavailable"
    DENIED = "denied"
    REFUSED = "refused"
    WAITING = "waiting"
    CONFLICT = "conflict"


class BrokerError(Exception):
    """Base of all. `message` and `hint` end up in logs and on terminals: values in them are never secrets."""

    kind: ClassVar[Kind] = Kind.UNEXPECTED
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(BrokerError):
    """An argument, a setting or a file cannot be used."""

    kind = Kind.INPUT


class UnknownNameError(InputError):
    """Nothing has this name."""

    kind = Kind.UNKNOWN_NAME


class VaultUnavailableError(BrokerError):
    """Vault gave no answer, or no usable one."""

    kind = Kind.VAULT_UNAVAILABLE
    retryable = True


class PartnerUnavailableError(BrokerError):
    """The partner did not answer, or asked us to back off."""

    kind = Kind.PARTNER_UNAVAILABLE
    retryable = True


class DeniedError(BrokerError):
    """An identity is not known, or may not do this."""

    kind = Kind.DENIED


class RefusedError(BrokerError):
    """A rule, a verification or the partner refuses; a retry changes nothing."""

    kind = Kind.REFUSED


class WaitingError(BrokerError):
    """A person or an application must act first."""

    kind = Kind.WAITING


class ConflictError(BrokerError):
    """A concurrent change came first; read it and decide again."""

    kind = Kind.CONFLICT
    retryable = True
