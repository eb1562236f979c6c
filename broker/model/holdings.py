"""The record of what each consumer holds, so that `retire` knows whom it cuts off."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.lease import ID_LENGTH, LONGEST, SKEW, BundleKind, Lease
from broker.model.names import AccountName

_MOST: Final = 2_000  # revocations of leases that the consumer gave back: each write of the record has all of them
_KEPT: Final = timedelta(days=1)  # past its end, since the clock of the broker that grants the next one may be ahead


class Holding(Struct, frozen=True):
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


Place = tuple[str, str, str, int]  # account, application, kind, generation


class Revocation(Struct, frozen=True):
    """The end of one lease, or with "" of all leases of a place, as far as they were granted in an earlier epoch.

    Each revocation starts an epoch of its consumer's record, so no clock decides which leases it ends. It is kept until
    the text of none of them can be valid.
    """

    lease: str
    place: Place
    epoch: int
    at: datetime

    def ends(self, lease: Lease) -> bool:
        """Return whether it revokes `lease`."""
        named = self.lease == lease.id if self.lease else self.place == _place_of(lease)
        return named and lease.epoch < self.epoch


class ConsumerRecord(Struct, frozen=True):
    """A Vault entity, or a person entered by hand, with a holding for each application, kind and generation."""

    entity: str
    name: str
    holdings: tuple[Holding, ...] = ()
    revocations: tuple[Revocation, ...] = ()

    def given(self, lease: Lease, *, now: datetime) -> ConsumerRecord:
        """Return the record with `lease` added, and without holdings that ended more than a day ago.

        A generation held before stays until its own end, of the same lease too: other processes of this entity may
        have got it by the same idempotency key, and still use it. Concurrent renewals may arrive in either order: the
        longer one counts.
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
        kept = [h for h in self.holdings if not _over(h, now - _KEPT)]
        before = next((h for h in kept if _place(h) == _place(holding)), None)
        if before and not _over(before, now):
            longest = max(lease.expires, before.until or lease.expires)
            shared = before.shared or before.lease != lease.id
            holding = replace(holding, since=before.since, until=longest, shared=shared)
        return replace(self, holdings=(*(h for h in kept if h is not before), holding))

    def returned(self, lease_id: str) -> ConsumerRecord:
        """Return the record without the holding of the lease `lease_id`, unless others share it."""
        return replace(self, holdings=tuple(h for h in self.holdings if h.lease != lease_id or h.shared))

    def covers(self, lease: Lease) -> bool:
        """Return whether the record, even an old one, says all that it would with `lease` added.

        Only a revocation removes a shared holding, and it ends a lease that has the epoch of a record before it.
        """
        return any(
            _place(h) == _place_of(lease) and h.shared and (h.until is None or h.until >= lease.expires)
            for h in self.holdings
        )

    @property
    def epoch(self) -> int:
        """The number of revocations so far. The newest is always kept, so it never goes back."""
        return max((r.epoch for r in self.revocations), default=0)

    def without(self, lease: Lease, *, now: datetime) -> ConsumerRecord:
        """Return the record with `lease` revoked by its holder: other leases of the holding stay.

        Raise `RefusedError` if its holder gave back too many in the last hour.
        """
        if self.has_revoked(lease):
            return self
        return _bounded(_revoking(self.returned(lease.id), lease.id, _place_of(lease), now))

    def ended(self, holding: Holding, *, now: datetime) -> ConsumerRecord:
        """Return the record without the holding of that place: every lease of it is revoked."""
        kept = replace(self, holdings=tuple(h for h in self.holdings if _place(h) != _place(holding)))
        # The lease may have been granted in other generations too, and a text of those be renewed
        one = _revoking(kept, holding.lease, _place(holding), now) if holding.lease else kept
        return _revoking(one, "", _place(holding), now)

    def without_lease(self, holding: Holding, *, now: datetime) -> ConsumerRecord:
        """Return the record with the lease of `holding` revoked, by its id: others that share the holding stay."""
        return _revoking(self.returned(holding.lease), holding.lease, _place(holding), now)

    def without_named(self, named: NamedLease, *, now: datetime) -> ConsumerRecord:
        """Return the record with the lease revoked by its holder; raise `RefusedError` as `without` does.

        A shared holding knows its newest lease only: any id may be one of its.
        """
        record = self
        for holding in self.holdings:
            is_named = (holding.lease == named.id or holding.shared) and not _over(holding, now)
            if is_named and _is_of(named, _place(holding)):
                record = _bounded(record.without_lease(replace(holding, lease=named.id), now=now))
        return record

    def has_revoked_named(self, named: NamedLease) -> bool:
        """Return whether the lease was revoked by its id, and not long ago."""
        return any(r.lease == named.id and _is_of(named, r.place) for r in self.revocations)

    def has_revoked(self, lease: Lease) -> bool:
        """Return whether the lease was revoked."""
        return any(r.ends(lease) for r in self.revocations)


class NamedLease(Struct, frozen=True):
    """A lease by its whole id, and the application that it is for."""

    id: str
    account: AccountName
    application: str


class StoredRecord(Struct, frozen=True):
    """A record, and the version of its document."""

    record: ConsumerRecord
    version: int


Held = tuple[ConsumerRecord, Holding]


class Which(Struct, frozen=True):
    """Names holdings: those that fit everything that is given."""

    lease: str = ""  # an id, or how it begins
    consumer: str = ""  # a name, or the id of an entity
    account: str = ""
    generation: int = 0

    def fits(self, record: ConsumerRecord, holding: Holding) -> bool:
        """Return whether it names `holding` of `record`."""
        return (
            (holding.lease.startswith(self.lease) or self._may_share(holding))
            and self.consumer in ("", record.name, record.entity)
            and self.account in ("", holding.account)
            and self.generation in (0, holding.generation)
        )

    def _may_share(self, holding: Holding) -> bool:
        """Return whether the named lease may be one of `holding`, which knows the newest of its leases only."""
        return holding.shared and bool(self.consumer) and len(self.lease) == ID_LENGTH

    @property
    def scope(self) -> str:
        """What a revocation of these ends, as evidence says it: one lease of a holding, or all."""
        return "lease" if self.lease else "holding"


def held(records: Iterable[ConsumerRecord], now: datetime, which: Which) -> tuple[Held, ...]:
    """Return the holdings that fit and that no end has passed, each with its consumer."""
    found = ((record, holding) for record in records for holding in record.holdings)
    fitting = [(r, h) for r, h in found if which.fits(r, h) and not _over(h, now)]
    return tuple((r, h if h.lease.startswith(which.lease) else replace(h, lease=which.lease)) for r, h in fitting)


def stragglers(
    records: Iterable[ConsumerRecord], account: AccountName, generation: int, now: datetime
) -> frozenset[str]:
    """Return the consumers that may still hold `generation` of `account`, with lease and end, for people.

    A lease counts for `SKEW` after its end: it is still valid at a replica whose clock is behind.
    """
    holding = held(records, now - SKEW, Which(account=account, generation=generation))
    return frozenset(f"{r.name} ({_until(h, now)})" for r, h in holding)


def _revoking(record: ConsumerRecord, lease: str, place: Place, now: datetime) -> ConsumerRecord:
    newest = Revocation(lease, place, record.epoch + 1, now)
    others = (r for r in record.revocations if (r.lease, r.place) != (lease, place))
    kept = (r for r in others if r.at > now - LONGEST - 2 * SKEW)  # two pairs of clocks: see ADR 28
    return replace(record, revocations=(*kept, newest))


def _bounded(record: ConsumerRecord) -> ConsumerRecord:
    if len(record.revocations) > _MOST:
        hint = "the lease ends by itself; hold one bundle for longer"
        raise RefusedError(f"this consumer gave back {_MOST:,} leases in the last 80 minutes", hint=hint)
    return record


def _until(holding: Holding, now: datetime) -> str:
    if holding.until is None:
        return f"by hand since {holding.since:%F %TZ}"
    more = ", and ten minutes more for wrong clocks" if _over(holding, now) else ""
    return f"lease {holding.lease} since {holding.since:%F %TZ} until {holding.until:%F %TZ}{more}"


def _place_of(lease: Lease) -> Place:
    return lease.account, lease.application, lease.kind.value, lease.generation


def _place(holding: Holding) -> Place:
    return holding.account, holding.application, holding.kind, holding.generation


def _is_of(named: NamedLease, place: Place) -> bool:
    return place[:3] == (named.account, named.application, BundleKind.DIRECT.value)


def _over(holding: Holding, now: datetime) -> bool:
    return holding.until is not None and holding.until <= now
