"""The applications that a caller has a right to, with the state of their bundles, and nothing else of an account."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Protocol

from broker.errors import DeniedError
from broker.issuing.fresh import Fresh
from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.lease import Caller, Consumer
from broker.model.names import AccountName

_KNOWN: Final = 60.0  # seconds that all accounts are taken to be as they were read: 1,000 reads are a second's work
_JUDGED: Final = 5.0  # seconds that the rights of a caller are kept


class State(Enum):
    """The state of an application's bundles."""

    READY = "ready"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    PENDING = "pending"  # there is no generation yet


@dataclass(frozen=True, slots=True)
class Usable:
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


class Admits(Protocol):
    """The `BatchIssuer` of the service."""

    async def among(self, caller: Caller, judge: Callable[[], tuple[Consumer, frozenset[str]]]) -> frozenset[str]:
        """Return rights of the caller; raise `DeniedError`."""

    async def in_thread(self, function: Callable[[], ByRight]) -> ByRight:
        """Call `function` in a thread."""


class Applications:
    """The use-case of a service. `all_of_them` and `permitted` are called in threads."""

    def __init__(
        self,
        issuer: Admits,
        all_of_them: Callable[[], ByRight],
        permitted: Callable[[Caller, Collection[str]], tuple[Consumer, frozenset[str]]],
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._read = all_of_them
        self._permitted = permitted
        self.clock = clock
        self._known: Fresh[str, ByRight] = Fresh(_KNOWN)
        self._rights: Fresh[bytes, frozenset[str]] = Fresh(_JUDGED)

    async def of(self, caller: Caller) -> list[Usable]:
        """Return the applications that the caller has a right to, by name; raise `DeniedError` if there is none."""
        known = await self._known.get("", lambda: self._issuer.in_thread(self._read))

        def judge() -> tuple[Consumer, frozenset[str]]:
            consumer, rights = self._permitted(caller, known)
            if not rights:
                raise DeniedError(f"{consumer.name} has no right to any application")
            return consumer, rights

        rights = await self._rights.get(caller.digest, lambda: self._issuer.among(caller, judge))
        return [known[right] for right in sorted(rights & known.keys())]


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
