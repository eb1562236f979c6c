"""A bundle's term, as a value; how long it may run is decided here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.errors import RefusedError
from broker.model.names import AccountName

__all__ = ["DEFAULT_CAP", "BundleKind", "Cap", "Lease", "expiry"]


class BundleKind(Enum):
    """What a consumer is given: the set itself, or a minutes-long certificate for our gateway."""

    DIRECT = "direct"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Cap:
    """How long a bundle may last: at a time, and with all its renewals."""

    once: timedelta
    whole: timedelta


DEFAULT_CAP: Final = Cap(once=timedelta(hours=1), whole=timedelta(hours=24))


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds which generation of what, until when. Text of it is signed by `issuing.leases`."""

    id: str
    consumer: str  # Vault entity id
    account: AccountName
    application: str
    kind: BundleKind
    generation: int
    first_issued: datetime
    expires: datetime


def expiry(asked: timedelta, cap: Cap, *, first_issued: datetime, now: datetime, not_after: datetime) -> datetime:
    """Return the earliest of what was asked, what the caps allow, and the certificate's own end.

    Raise `RefusedError` where that is not in the future.
    """
    end = min(now + asked, now + cap.once, first_issued + cap.whole, not_after)
    if end <= now:
        raise RefusedError(
            "the certificate has expired" if not_after <= now else "the lease has had all the time it may have",
            hint="broker status shows what is due" if not_after <= now else "ask for a new bundle",
        )
    return end
