"""Grant bundles to many callers: what was read a moment ago is used again, and what is written is written together.

Three rules keep this as strict as `grant.Issuer`, which reads everything for each bundle:

- An account is at most `OLDEST` seconds old when its bundle leaves: if recording took longer, it is looked at again.
  It is as old as its reading, or as the change document in which nobody announced a change of it (`announced`).
- So a bundle of a generation that is no longer current is recorded within `OLDEST` seconds of the promotion, and
  `rotation retire` waits that long after it before it looks for holders.
- A lease is renewed only if that is durable before its old end, so that its holder is never unrecorded.

A right is at most `JUDGED` seconds old.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Generic, TypeVar

from msgspec import Struct, field

from broker.copies import replace
from broker.errors import BrokerError, BusyError, ConflictError, VaultUnavailableError
from broker.issuing.admission import Admission
from broker.issuing.announced import Announced
from broker.issuing.away import Away
from broker.issuing.batches import Batches, Recording
from broker.issuing.fresh import Fresh
from broker.issuing.grant import (
    ReadAccount,
    ReadSecrets,
    Renewed,
    SetSecrets,
    bundle_of,
    deliverable,
    lease_of,
    newer_than,
    renewal,
)
from broker.issuing.leases import LeaseSigner, ended
from broker.issuing.rates import Rates
from broker.issuing.signers import Signers
from broker.model.account import Account
from broker.model.authentication import Authentication
from broker.model.bundle import Bundle, Wanted
from broker.model.clock import Clock
from broker.model.holdings import NamedLease
from broker.model.lease import LONGEST, BundleKind, Caller, Consumer, Lease
from broker.model.names import AccountName
from broker.model.recent_changes import ACCOUNTS, RecentChanges
from broker.model.secret import Secret
from broker.telemetry import log

OLDEST: Final = 2.0
JUDGED: Final = 5.0
_TRIES: Final = 3
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Result = TypeVar("_Result")
_Returned = TypeVar("_Returned", Lease, NamedLease)
Contents = TypeVar("Contents")
Judge = Callable[[Caller, AccountName, str, BundleKind], Consumer]  # raises DeniedError


class Ports(Struct, Generic[Contents], frozen=True):
    """`contents`, and what blocks and is called in threads.

    `contents` makes what all bundles of one generation and application have in common. It is called for the first
    bundle, and must not use the lease.
    """

    signer: Callable[[], LeaseSigner]
    contents: Callable[[Bundle], Contents]
    accounts: ReadAccount
    authentication: Callable[[Account], Authentication]
    judge: Judge
    group: Callable[[Caller], str]  # of callers whose logins wait for the same server; "": none
    read_secrets: ReadSecrets
    end: Callable[[Consumer, Lease], None]
    end_named: Callable[[Consumer, NamedLease], None]  # raises DeniedError
    note_return: Callable[[Consumer, Lease | NamedLease], None]  # stores evidence of the end
    require_true_clock: Callable[[], object]  # raises `RefusedError` while it is wrong
    changes: Callable[[], RecentChanges]
    announced: Announced  # shared with what records


class Limits(Struct, frozen=True):
    """Bounds of what callers can make the issuer do."""

    threads: int = 16  # requests that are with Vault
    waiting: int = 1000  # requests that wait for a thread
    rate: float = 0  # requests a second of each consumer; 0: any number
    strangers: int = 4  # of those with Vault, at most so many are about callers without a known right


class Issued(Struct, Generic[Contents], frozen=True):
    """A bundle: its contents, and the lease that renews it."""

    contents: Contents
    consumer: Consumer
    lease: Lease
    lease_text: Secret[str]


class Snapshot(Struct, Generic[Contents], frozen=True):
    """An account, and the secrets of its current generation, as they were at `at`."""

    account: Account
    authentication: Authentication
    hidden: SetSecrets | None
    at: float
    contents: dict[str, Contents] = field(default_factory=dict)  # by application, as they are asked for


class BatchIssuer(Generic[Contents]):
    """The use-case of a service, on its event loop."""

    def __init__(
        self,
        ports: Ports[Contents],
        batches: Batches,
        clock: Clock,
        limits: Limits | None = None,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ports = ports
        self._batches = batches
        self._announced = ports.announced
        self._clock = clock
        self._limits = limits or Limits()
        self._uptime = uptime
        self._threads = ThreadPoolExecutor(self._limits.threads, "vault")
        self._asking = 0
        self._away = Away()
        self._signers = Signers(lambda: self.in_thread(ports.signer), uptime)
        self._heard: Fresh[str, None] = Fresh(OLDEST / 2, uptime)
        self._snapshots: Fresh[AccountName, Snapshot[Contents]] = Fresh(OLDEST / 2, uptime, self._as_of)
        self._rates = Rates(self._limits.rate, uptime)
        self._admission = Admission(self._limits.strangers, self._limits.waiting)
        self._judgements: Fresh[tuple[bytes, AccountName, str, BundleKind], Consumer] = Fresh(JUDGED, uptime)

    async def grant(self, caller: Caller, wanted: Wanted) -> Issued[Contents]:
        """Return a bundle of the current generation, as `grant.Issuer.grant` does."""
        for _ in range(_TRIES):
            consumer = await self._judged(caller, wanted.account, wanted.application, wanted.kind)
            seen = await self._snapshot(wanted.account)
            generation = deliverable(seen.account, wanted.application, seen.authentication)
            lease = _rounded(lease_of(wanted, consumer, seen.account, generation, now=self._clock()), wanted.ttl)
            contents, signer = self._contents(seen, lease), await self._signers.current()
            epoch = await self._batches.record(Recording(consumer, lease, keyed=bool(wanted.idempotency_key)))
            if self._is_fresh(seen):
                lease = replace(lease, epoch=epoch) if epoch else lease
                return Issued(contents, consumer, lease, signer.signed(lease))
        raise VaultUnavailableError("Vault is too slow to issue bundles safely", hint="ask again")

    async def renew(self, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        """Return the lease with a later end, as `grant.Issuer.renew` does."""
        for _ in range(_TRIES):
            lease, consumer = await self.held(caller, lease_text)
            seen = await self._snapshot(lease.account)
            later = _rounded(renewal(lease, seen.account, ttl, now=self._clock()), ttl)
            renewed = replace(later, expires=max(later.expires, lease.expires))
            signer = await self._signers.current()
            await self._batches.record(Recording(consumer, renewed, renewed=lease))
            if self._clock() >= lease.expires:
                raise ended()
            if self._is_fresh(seen):
                return Renewed(renewed, signer.signed(renewed), newer_than(lease, seen.account))
        raise VaultUnavailableError("Vault is too slow to renew leases safely", hint="ask again")

    async def revoke(self, caller: Caller, lease_text: Secret[str]) -> Lease:
        """End a lease of this caller, and return it; repeated, it changes nothing. Raise `DeniedError`.

        Neither account nor secrets are read: a bundle can be given back after these were destroyed.
        """
        lease, consumer = await self.held(caller, lease_text)
        await self._ended(self._ports.end, consumer, lease)
        return lease

    async def revoke_named(self, caller: Caller, named: NamedLease) -> Consumer:
        """End a lease of this caller by its id, and return the caller; else as `revoke`."""
        consumer = await self.judged(caller, named.account, named.application)
        await self._ended(self._ports.end_named, consumer, named)
        return consumer

    async def judged(self, caller: Caller, account: AccountName, application: str) -> Consumer:
        """Return the consumer, who has the right to bundles of `application`; raise `DeniedError`."""
        return await self._judged(caller, account, application, BundleKind.DIRECT)

    async def held(self, caller: Caller, lease_text: Secret[str]) -> tuple[Lease, Consumer]:
        """Return a lease of this caller; raise `DeniedError`."""
        lease = await self._signers.opened(lease_text, now=self._clock())
        consumer = await self._judged(caller, lease.account, lease.application, lease.kind)
        if consumer.entity != lease.consumer:
            raise ended()
        return lease, consumer

    async def admit(self, caller: Caller, judge: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return what `judge` finds of the caller's rights; raise `DeniedError`."""
        return await self._admission.admit(caller.digest, judge, self._ports.group(caller))

    def take(self, consumer: Consumer) -> None:
        """Count a request of a consumer; raise `RateError` if there are too many."""
        log.bind(**consumer.fields)
        self._rates.take(consumer.entity)

    def forget(self, account: AccountName) -> None:
        """Read the account again when it is next asked for: it has changed."""
        self._snapshots.forget(account)

    @property
    def pending(self) -> int:
        """How many calls are in threads, or wait for one."""
        return self._asking

    async def in_thread(self, function: Callable[[], _Result]) -> _Result:
        """Call `function` in a thread; raise `VaultUnavailableError` if too many wait for one, or Vault is away."""
        if self._asking >= self._limits.threads + self._limits.waiting:
            raise BusyError("too many requests wait for Vault")
        self._asking += 1
        try:
            call = partial(copy_context().run, self._away.call, function)
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._asking -= 1

    async def _ended(self, end: Callable[[Consumer, _Returned], None], consumer: Consumer, lease: _Returned) -> None:
        def in_time() -> None:
            self._ports.require_true_clock()  # a revocation is kept for a time
            end(consumer, lease)
            self._ports.note_return(consumer, lease)

        await self.in_thread(in_time)

    def _contents(self, seen: Snapshot[Contents], lease: Lease) -> Contents:
        if lease.application not in seen.contents:
            if seen.hidden is None:
                raise ConflictError(f"{lease.account} is being rotated", hint="ask again")
            bundle = bundle_of(seen.account, lease, seen.hidden, seen.authentication)
            seen.contents[lease.application] = self._ports.contents(bundle)
        return seen.contents[lease.application]

    def _as_of(self, name: AccountName, at: float) -> float:
        return self._announced.as_of(f"{ACCOUNTS}{name}", at)

    def _is_fresh(self, seen: Snapshot[Contents]) -> bool:
        return self._uptime() - self._as_of(seen.account.name, seen.at) < OLDEST

    async def _hear(self) -> None:
        """Read the change document. If that fails, each account and record is as old as its own reading."""

        def read() -> RecentChanges:
            self._ports.require_true_clock()
            return self._ports.changes()

        began = self._uptime()
        try:
            self._announced.take(await self.in_thread(read), began)
        except BrokerError as error:
            log.info("changes cannot be read", reason=error.message)

    async def _snapshot(self, name: AccountName) -> Snapshot[Contents]:
        await self._heard.get("", self._hear)
        return await self._snapshots.get(name, lambda: self.in_thread(lambda: self._read(name)))

    def _read(self, name: AccountName) -> Snapshot[Contents]:
        at, last = self._uptime(), self._snapshots.last(name)
        self._ports.require_true_clock()
        account = self._ports.accounts(name)
        authentication = self._ports.authentication(account)
        if last and (last.account, last.authentication) == (account, authentication):
            return replace(last, at=at)  # secrets are written once: these are still its own
        current = account.current
        hidden = self._ports.read_secrets(name, current.parts) if current else None
        return Snapshot(account, authentication, hidden, at)

    async def _judged(self, caller: Caller, name: AccountName, application: str, kind: BundleKind) -> Consumer:
        def judge() -> Consumer:
            return self._ports.judge(caller, name, application, kind)

        digest = caller.digest
        key = (digest, name, application, kind)
        load = partial(self.admit, caller, lambda: self.in_thread(judge))
        consumer = await self._judgements.get(key, load)
        self.take(consumer)
        return consumer


def _rounded(lease: Lease, ttl: timedelta) -> Lease:
    """Return `lease` with its end rounded down to a multiple of a sixtieth of the term, as `batches` wants it."""
    step = min(ttl, LONGEST) / 60
    return replace(lease, expires=lease.expires - (lease.expires - _EPOCH) % step)
