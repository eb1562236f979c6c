"""The tree of errors.

    BrokerError                   what is wrong; `hint` says what to do
    ├── InputError                an argument, a setting or a file is not usable
    │   └── UnknownNameError      nothing has this name
    ├── VaultUnavailableError     Vault gave no usable answer; a retry may help
    │   ├── PartlyUnavailableError    Vault is up, but gives this request nothing usable
    │   └── BusyError             this replica has too much to do, or ends
    ├── PartnerUnavailableError   the partner gave no usable answer; a retry may help
    ├── MailUnavailableError      the mail server gave no usable answer, or asked to try later; a retry may help
    ├── DeniedError               the identity is unknown or lacks a right
    ├── RefusedError              a rule, a check or the partner refuses; a retry does not help
    ├── WaitingError              a person or a consumer must act first
    ├── ConflictError             another change came first
    ├── RateError                 the caller asks too often
    └── StorageFullError          no space is left for a file

A room derives its own errors from these, beside the code that raises them. Exit codes are in `cli/exits.py`, HTTP
problems in `service/problems.py`; a test checks that each table has every `Kind`.
"""

import errno
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, Final


class Kind(Enum):
    """Kinds of errors that a caller can handle."""

    UNEXPECTED = "unexpected"
    INPUT = "input"
    UNKNOWN_NAME = "unknown-name"
    VAULT_UNAVAILABLE = "vault-unavailable"
    PARTNER_UNAVAILABLE = "partner-unavailable"
    MAIL_UNAVAILABLE = "mail-unavailable"
    DENIED = "denied"
    REFUSED = "refused"
    WAITING = "waiting"
    CONFLICT = "conflict"
    RATE = "rate"
    STORAGE_FULL = "storage-full"


class BrokerError(Exception):
    """Base of all errors. `message` and `hint` are logged and printed: no secret may be in them."""

    kind: ClassVar[Kind] = Kind.UNEXPECTED
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(BrokerError):
    """An argument, a setting or a file is not usable."""

    kind = Kind.INPUT


class UnknownNameError(InputError):
    """No object has this name."""

    kind = Kind.UNKNOWN_NAME


class VaultUnavailableError(BrokerError):
    """Vault did not answer, or gave no usable answer."""

    kind = Kind.VAULT_UNAVAILABLE
    retryable = True


class PartlyUnavailableError(VaultUnavailableError):
    """Vault is up, but does not give what this request needs; other requests may succeed."""


class BusyError(VaultUnavailableError):
    """This replica has too much to do, or ends. Callers see `message` and `hint`: nothing about Vault is in them."""


class PartnerUnavailableError(BrokerError):
    """The partner did not answer, or asked us to back off."""

    kind = Kind.PARTNER_UNAVAILABLE
    retryable = True


class MailUnavailableError(BrokerError):
    """The mail server, or the server of its tokens, did not answer or asked to try later."""

    kind = Kind.MAIL_UNAVAILABLE
    retryable = True


class DeniedError(BrokerError):
    """The identity is unknown or lacks a right."""

    kind = Kind.DENIED
    who: Mapping[str, str] = MappingProxyType({})  # fields for the log that name the identity, if it is known


class RefusedError(BrokerError):
    """A rule, a check or the partner refuses; a retry does not help."""

    kind = Kind.REFUSED


class WaitingError(BrokerError):
    """A person or a consumer must act first."""

    kind = Kind.WAITING


class ConflictError(BrokerError):
    """Another change came first; read the new state and try again."""

    kind = Kind.CONFLICT
    retryable = True


class RateError(BrokerError):
    """The service was asked more often than it answers one consumer; try again later."""

    kind = Kind.RATE
    retryable = True


class StorageFullError(BrokerError):
    """No space is left for a file, or for the output; free some and run the command again."""

    kind = Kind.STORAGE_FULL
    retryable = True


FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, by the disk, the quota or the limit of a file


def unwritable(what: str, error: OSError) -> BrokerError:
    """Return the error for `what`, a file or an output that cannot be written."""
    message = f"cannot write {what}: {error.strerror}"
    if error.errno in FULL:
        return StorageFullError(message, hint="free some space, and run the command again")
    return InputError(message)
