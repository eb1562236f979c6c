"""Leases, the terms of bundles; and the record of what each consumer holds, so that `retire` knows whom it cuts off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.errors import RefusedError
from broker.model.names import AccountName

LONGEST: Final = timedelta(hours=1)
_KEPT: Final = timedelta(days=1)  # past its end, since the clock of the broker that grants the next one may be ahead


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
        raise RefusedError(f"the certificate expired on {not_after:%F %TZ}", hint="broker status")
    if asked <= timedelta(0):
        raise RefusedError("the term of a bundle must be longer than zero", hint="ask for a term such as --ttl 1h")
    return min(now + min(asked, LONGEST), not_after)


@dataclass(frozen=True, slots=True)
class Holding:
    """A generation that a consumer holds. `until` is None for a holding by hand, which no lease ends.

    Processes may share one entity, each with its lease: such a holding is `shared`, and only time ends it.
    """

    account: AccountName
    application: str
    kind: str  # a `BundleKind`, or "by hand"
    generation: int
    lease: str
    since: datetime
    until: datetime | None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class ConsumerRecord:
    """A Vault entity, or a person entered by hand, with a holding for each application, kind and generation."""

    entity: str
    name: str
    holdings: tuple[Holding, ...] = ()

    def given(self, lease: Lease, *, now: datetime) -> ConsumerRecord:
        """Return the record with `lease` added, and without holdings that ended more than a day ago.

        A generation held before stays until its own end: another process of this entity may still use it. Concurrent
        renewals may arrive in either order: the longer one counts.
        """
        holding = Holding(
            lease.account,
            lease.application,
            lease.kind.value,
            lease.generation,
            lease.id,
            lease.first_issued,
            lease.expires,
        )
        moved_on = [
            h for h in self.holdings if h.lease == lease.id and h.generation != lease.generation and not h.shared
        ]
        kept = [h for h in self.holdings if not _over(h, now - _KEPT) and h not in moved_on]
        before = next((h for h in kept if _place(h) == _place(holding)), None)
        if before and not _over(before, now):
            longest = max(lease.expires, before.until or lease.expires)
            shared = before.shared or before.lease != lease.id
            holding = replace(holding, since=before.since, until=longest, shared=shared)
        return replace(self, holdings=(*(h for h in kept if h is not before), holding))

    def returned(self, lease_id: str) -> ConsumerRecord:
        """Return the record without the holding of the lease `lease_id`, unless others share it."""
        return replace(self, holdings=tuple(h for h in self.holdings if h.lease != lease_id or h.shared))

    def revoked(self, lease_id: str) -> ConsumerRecord:
        """Return the record without the holding of the lease `lease_id`, and of all leases that share it."""
        return replace(self, holdings=tuple(h for h in self.holdings if h.lease != lease_id))


Held = tuple[ConsumerRecord, Holding]


def held(records: Iterable[ConsumerRecord], account: AccountName, now: datetime) -> tuple[Held, ...]:
    """Return the holdings of `account` that no end has passed, each with its consumer."""
    found = ((record, holding) for record in records for holding in record.holdings)
    return tuple((r, h) for r, h in found if h.account == account and not _over(h, now))


def stragglers(
    records: Iterable[ConsumerRecord], account: AccountName, generation: int, now: datetime
) -> frozenset[str]:
    """Return the consumers that still hold `generation` of `account`, with lease and end, for people."""
    holding = held(records, account, now)
    return frozenset(f"{r.name} ({_until(h)})" for r, h in holding if h.generation == generation)


def _until(holding: Holding) -> str:
    return f"lease {holding.lease} until {holding.until:%F %TZ}" if holding.until else "by hand"


def _place(holding: Holding) -> tuple[str, str, str, int]:
    return holding.account, holding.application, holding.kind, holding.generation


def _over(holding: Holding, now: datetime) -> bool:
    return holding.until is not None and holding.until <= now
