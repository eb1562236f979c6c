"""A consumer's document: what it holds, so that `retire` knows whom it would cut off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.model.lease import Lease
from broker.model.names import AccountName

__all__ = ["ConsumerRecord", "Holding", "stragglers"]

BY_HAND: Final = "by hand"


@dataclass(frozen=True, slots=True)
class Holding:
    """One generation in a consumer's hands. `until` is None for what a person holds, which no lease ends."""

    account: AccountName
    application: str
    kind: str  # a `BundleKind`, or "by hand"
    generation: int
    lease: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class ConsumerRecord:
    """A Vault entity, or a person named by hand, and what it holds: one holding an application and kind."""

    entity: str
    name: str
    holdings: tuple[Holding, ...] = ()

    def given(self, lease: Lease, *, now: datetime) -> ConsumerRecord:
        """Return the record with `lease` in the place of what it renews or replaces, and without what has run out.

        Two renewals at once may arrive in either order: the longer one counts.
        """
        holding = Holding(
            lease.account,
            lease.application,
            lease.kind.value,
            lease.generation,
            lease.id,
            lease.first_issued,
            max([lease.expires, *(h.until for h in self.holdings if h.until and h.lease == lease.id)]),
        )
        others = (h for h in self.holdings if _place(h) != _place(holding) and not _over(h, now))
        return replace(self, holdings=(*others, holding))

    def returned(self, lease_id: str) -> ConsumerRecord:
        """Return the record without the holding of lease `lease_id`."""
        return replace(self, holdings=tuple(h for h in self.holdings if h.lease != lease_id))


def stragglers(
    records: tuple[ConsumerRecord, ...], account: AccountName, generation: int, now: datetime
) -> frozenset[str]:
    """Return the names of consumers that still hold `generation` of `account`."""
    return frozenset(
        record.name
        for record in records
        for holding in record.holdings
        if (holding.account, holding.generation) == (account, generation) and not _over(holding, now)
    )


def _place(holding: Holding) -> tuple[str, str, str]:
    return holding.account, holding.application, holding.kind


def _over(holding: Holding, now: datetime) -> bool:
    return holding.until is not None and holding.until <= now
