"""Leases: the term of a bundle, and the rule for how long it may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.errors import RefusedError
from broker.model.names import AccountName

__all__ = ["DEFAULT_CAP", "BundleKind", "Cap", "Lease", "expiry"]


class BundleKind(Enum):
    """The kinds of bundles: the set itself, or a certificate for the gateway that lasts minutes."""

    DIRECT = "direct"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Cap:
    """The longest term of a bundle: of one lease, and with all renewals."""

    once: timedelta
    whole: timedelta


DEFAULT_CAP: Final = Cap(once=timedelta(hours=1), whole=timedelta(hours=24))


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


def expiry(asked: timedelta, cap: Cap, *, first_issued: datetime, now: datetime, not_after: datetime) -> datetime:
    """Return the earliest of the end asked for, those of the two caps, and the certificate's.

    Raise `RefusedError` if that is not in the future.
    """
    end = min(now + asked, now + cap.once, first_issued + cap.whole, not_after)
    if not_after <= now:
        raise RefusedError(f"the certificate expired on {not_after:%F}", hint="broker status")
    if end <= now:
        raise RefusedError("the lease cannot be renewed any longer", hint="get a new bundle")
    return end
