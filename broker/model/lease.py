"""Leases: the term of a bundle, and the rule for how long it may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.errors import RefusedError
from broker.model.names import AccountName

LONGEST: Final = timedelta(hours=1)


class BundleKind(Enum):
    """The kinds of bundles: the set itself, or a certificate for the gateway that lasts minutes."""

    DIRECT = "direct"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Lease:
    """The term for which a consumer holds a generation. `issuing.leases` makes signed text of it."""

    id: str
    consumer: str  # Vault entity id
    account: AccountName
    application: str
    kind: BundleKind
    generation: int
    first_issued: datetime
    expires: datetime


def expiry(asked: timedelta, *, now: datetime, not_after: datetime) -> datetime:
    """Return the earliest of the end asked for, an hour from `now`, and the certificate's end.

    Raise `RefusedError` if that is not in the future.
    """
    if not_after <= now:
        raise RefusedError(f"the certificate expired on {not_after:%F}", hint="broker status")
    if asked <= timedelta(0):
        raise RefusedError("the term of a bundle must be longer than zero", hint="ask for a term such as --ttl 1h")
    return min(now + min(asked, LONGEST), not_after)
