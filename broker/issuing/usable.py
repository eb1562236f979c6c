"""The applications that a caller has a right to, with the state of their bundles, and nothing else of an account."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from broker.errors import DeniedError
from broker.issuing.batch_issuer import JUDGED
from broker.issuing.fresh import Fresh
from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.lease import Caller, Consumer
from broker.model.names import AccountName

_KNOWN: Final = 60.0  # seconds that all accounts are taken to be as they were read: 1,000 reads are a second's work


class State(Enum):
    """The state of an application's bundles."""

    READY = "ready"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    PENDING = "pending"  # there is no generation yet


class Usable(Struct, frozen=True):
    """An application, with its account's current generation."""

    account: AccountName
    application: str
    generation: int | None
    not_after: datetime | None
    suspended: bool

    def state(self, now: datetime) -> State:
        """Return the state of its bundles."""
        if self.suspended:
            return State.SUSPENDED
        if self.not_after is None:
            return State.PENDING
        return State.EXPIRED if self.not_after <= now else State.READY


ByRight = Mapping[str, Usable]  # by the path of the right to it
_Rights = tuple[Consumer, frozenset[str]]
_Result = TypeVar("_Result")


class Admits(Protocol):
    """The `BatchIssuer` of the service."""

    async def admit(self, caller: Caller, judge: Callable[[], Awaitable[_Rights]]) -> _Rights:
        """Return what `judge` finds of the caller's rights; raise `DeniedError`."""

    def take(self, consumer: Consumer) -> None:
        """Count a request; raise `RateError` if there are too many."""

    async def in_thread(self, function: Callable[[], _Result]) -> _Result:
        """Call `function` in a thread."""


class Applications:
    """The use-case of a service. `all_of_them` and `permitted` are called in threads."""

    def __init__(
        self,
        issuer: Admits,
        all_of_them: Callable[[], ByRight],
        permitted: Callable[[Caller, Collection[str]], _Rights],
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._read = all_of_them
        self._permitted = permitted
        self.clock = clock
        self._known: Fresh[str, ByRight] = Fresh(_KNOWN)
        self._rights: Fresh[bytes, _Rights] = Fresh(JUDGED)

    async def of(self, caller: Caller) -> list[Usable]:
        """Return the applications that the caller has a right to, by name; raise `DeniedError` if there is none."""
        _, rights = await self._admitted(caller)
        known = await self._all()
        return [known[right] for right in sorted(rights & known.keys())]

    async def consumer(self, caller: Caller) -> Consumer:
        """Return the consumer, who has a right to an application; raise `DeniedError`."""
        return (await self._admitted(caller))[0]

    async def _admitted(self, caller: Caller) -> _Rights:
        judge = partial(self._judged, caller)
        consumer, rights = await self._rights.get(caller.digest, lambda: self._issuer.admit(caller, judge))
        self._issuer.take(consumer)
        return consumer, rights

    async def _judged(self, caller: Caller) -> _Rights:
        await self._issuer.in_thread(lambda: self._permitted(caller, ()))  # nothing is read for a stranger
        known = await self._all()
        consumer, rights = await self._issuer.in_thread(lambda: self._permitted(caller, known))
        if not rights:
            denied = DeniedError(f"{consumer.name} has no right to any application")
            denied.who = consumer.fields
            raise denied
        return consumer, rights

    async def _all(self) -> ByRight:
        return await self._known.get("", lambda: self._issuer.in_thread(self._read))


def usable(accounts: Iterable[Account]) -> Iterator[tuple[Account, Usable]]:
    """Yield each application of accounts that are not removed."""
    for account in accounts:
        if account.removed:
            continue
        current = account.current
        number = current.number if current else None
        not_after = account.certificate(current.parts.certificate).not_after if current else None
        for application in account.applications:
            yield account, Usable(account.name, application.name, number, not_after, account.suspended is not None)
