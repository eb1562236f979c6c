"""Who held which generation of an account, and when, by the evidence of what was issued.

Entries are read one after the other in the order of time, and only leases that have not ended are kept in memory.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from broker.copies import replace
from broker.model.chain import Entry, Fact
from broker.model.history import Event
from broker.model.lease import LONGEST, RENEWABLE, SKEW
from broker.model.names import AccountName
from broker.typed import from_json, typed

EARLIER: Final = RENEWABLE + LONGEST + SKEW  # before a period: a lease that is held in it was issued or renewed then
LATER: Final = RENEWABLE + SKEW  # after a period: the end of a lease that was issued in it is known then
HELD: Final = "held"  # so far
EXPIRED: Final = "expired"
_ISSUED: Final = ("bundle-issued", "lease-renewed")


class Holder(Struct, frozen=True):
    """A consumer that held a generation under a lease, from `since` to `until`."""

    consumer: str
    entity: str
    application: str
    kind: str
    generation: int
    lease: str
    since: datetime
    until: datetime
    end: str = EXPIRED  # or returned, revoked, held

    def at(self, now: datetime) -> "Holder":
        """Return this as it is `now`: a lease with a later end has not expired."""
        return replace(self, end=HELD) if self.end == EXPIRED and self.until > now else self


class Period(Struct, frozen=True):
    """The time that is asked about."""

    start: datetime
    end: datetime

    @property
    def around(self) -> "Period":
        """The period from which evidence says something about this one."""
        earliest = datetime.min.replace(tzinfo=UTC) + EARLIER
        latest = datetime.max.replace(tzinfo=UTC) - LATER
        return Period(max(self.start, earliest) - EARLIER, min(self.end, latest) + LATER)

    def meets(self, held: Holder) -> bool:
        """Return whether any moment of the period lies in the time that the generation was held."""
        return held.since < self.end and held.until > self.start


class _Lease(msgspec.Struct, frozen=True):
    """What evidence says of a lease that was granted or renewed (`issuing.grant.facts`)."""

    account: str
    application: str
    generation: int
    kind: str
    consumer: str
    lease: str
    expires: datetime
    consumer_name: str = ""
    what: str = ""


class _Ended(msgspec.Struct, frozen=True):
    """What evidence says of a lease that was returned, or of leases that a person revoked."""

    lease: str
    consumer: str
    generation: int = 0
    application: str = ""
    kind: str = ""
    scope: str = "lease"

    def names(self, held: Holder) -> bool:
        if held.entity != self.consumer:
            return False
        if held.lease == self.lease:
            return True
        place = (held.generation, self.application or held.application, self.kind or held.kind)
        return self.scope == "holding" and place == (self.generation, held.application, held.kind)


_Key = tuple[str, str, int]  # entity, lease, generation
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


@dataclass(slots=True)
class _Held:
    """Leases of which later entries may say more: by entity and lease, with each generation; and by their end."""

    found: dict[tuple[str, str], dict[int, Holder]] = field(default_factory=dict)
    ends: list[tuple[datetime, _Key]] = field(default_factory=list)

    def note(self, said: _Lease, at: datetime) -> Iterator[Holder]:
        """Take note of a grant or a renewal; yield what the same lease was before a grant that follows its end."""
        of_lease = self.found.setdefault((said.consumer, said.lease), {})
        before = of_lease.get(said.generation)
        if before and before.end != EXPIRED:
            if said.what == "lease-renewed":  # it was refused: its evidence is written meanwhile
                return
            yield of_lease.pop(said.generation)
            before = None
        who = (said.consumer_name, said.consumer, said.application, said.kind)
        now = Holder(*who, said.generation, said.lease, at, said.expires)
        if before:
            now = replace(now, since=min(before.since, at), until=max(before.until, said.expires))
        of_lease[said.generation] = now
        heapq.heappush(self.ends, (now.until, (said.consumer, said.lease, said.generation)))

    def end(self, said: _Ended, at: datetime, why: str) -> None:
        """Take note of an end."""
        whole = said.scope == "holding"
        for of_lease in self.found.values() if whole else [self.found.get((said.consumer, said.lease), {})]:
            for number, held in of_lease.items():
                if held.end == EXPIRED and held.until > at and said.names(held):
                    of_lease[number] = replace(held, until=max(at, held.since), end=why)

    def over(self, now: datetime) -> Iterator[Holder]:
        """Yield, and forget, the leases of which no entry from `now` on can say anything more."""
        while self.ends and self.ends[0][0] < now - SKEW:
            _, (entity, lease, number) = heapq.heappop(self.ends)
            of_lease = self.found.get((entity, lease), {})
            if number in of_lease and of_lease[number].until < now - SKEW:
                yield of_lease.pop(number)
            if not of_lease:
                self.found.pop((entity, lease), None)

    def rest(self) -> list[Holder]:
        """Return all others."""
        return [held for of_lease in self.found.values() for held in of_lease.values()]


def holders(
    entries: Iterable[Entry], account: AccountName, period: Period, unread: Callable[[Entry], None]
) -> Iterator[Holder]:
    """Yield who held a generation of `account` in `period`, by `entries` in the order of time, at the end of each.

    `entries` begin `EARLIER` than the period. `unread` is called with an entry that makes no sense.
    """
    held = _Held()
    for entry in entries:
        yield from filter(period.meets, held.over(entry.at))
        try:
            yield from filter(period.meets, _noted(held, entry, account))
        except (msgspec.ValidationError, msgspec.DecodeError):
            unread(entry)
    yield from filter(period.meets, sorted(held.rest(), key=lambda holder: holder.until))


def _noted(held: _Held, entry: Entry, account: AccountName) -> Iterator[Holder]:
    match entry.what:
        case "bundle-returned":
            held.end(_read(entry.facts, _Ended), entry.at, "returned")
        case Event.LEASE_REVOKED.value if entry.chain == f"accounts/{account}":
            facts = {"scope": "holding", **entry.facts}  # older entries do not say it
            held.end(_read(facts, _Ended), entry.at, "revoked")
        case "bundles-issued":
            for line in str(entry.facts.get("records", "")).splitlines():
                yield from _of_account(held, from_json(line, _Lease), entry, account)
        case what if what in _ISSUED:
            yield from _of_account(held, _read({**entry.facts, "what": what}, _Lease), entry, account)


def _of_account(held: _Held, said: _Lease, entry: Entry, account: AccountName) -> Iterator[Holder]:
    if said.account == account:
        yield from held.note(said, entry.at)


def _read(facts: Mapping[str, Fact], kind: type[_Kind]) -> _Kind:
    return typed(facts, kind)
