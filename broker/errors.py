"""Everything that can go wrong, as a user meets it.

    BrokerError                   what was wrong, where; `hint` says what to do
    ├── InputError                what was typed, or a file that was named, cannot be used
    │   └── UnknownNameError      nothing has this name
    ├── VaultUnavailableError     Vault gave no answer, or none to build on; a retry may help
    ├── PartnerUnavailableError   the partner gave none
    ├── DeniedError               an identity may not do this
    ├── RefusedError              a rule of ours, a check, or the partner says no
    ├── WaitingError              the next move is a person's, or a straggler's
    └── ConflictError             somebody else moved first

A room derives its own errors from these, beside the code that raises them. The tree knows neither exit codes nor
HTTP: `cli/exits.py` and, later, `service/problems.py` hold those two tables, and a test walks `Kind` through them.
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
    """The few answers a caller can act upon."""

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
    """What was typed, configured or handed over as a file cannot be used."""

    kind = Kind.INPUT


class UnknownNameError(InputError):
    """Nothing has this name."""

    kind = Kind.UNKNOWN_NAME


class VaultUnavailableError(BrokerError):
    """Vault did not answer, or not in a way one can build on."""

    kind = Kind.VAULT_UNAVAILABLE
    retryable = True


class PartnerUnavailableError(BrokerError):
    """The partner did not answer, or asked to be left alone for a while."""

    kind = Kind.PARTNER_UNAVAILABLE
    retryable = True


class DeniedError(BrokerError):
    """An identity is not known, or may not do this."""

    kind = Kind.DENIED


class RefusedError(BrokerError):
    """A rule, a verification or the partner says no; asking again changes nothing."""

    kind = Kind.REFUSED


class WaitingError(BrokerError):
    """The next move is a person's or a straggler's."""

    kind = Kind.WAITING


class ConflictError(BrokerError):
    """Somebody else moved first; what they did is there to be read."""

    kind = Kind.CONFLICT
    retryable = True
