"""The partner of the two years: people who sign, or don't, and change passwords and CAs. All dates are simulated."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from partner_standin import Standin

if TYPE_CHECKING:
    from collections.abc import Callable

DAY: Final = timedelta(days=1)


class Manner(Enum):
    """How the partner's people deal with one request, or with a password."""

    PROMPT = "a good answer within days"
    SLOW = "a good answer, later than the lead time"
    WRONG_KEY = "a certificate for another key first"
    WRONG_SUBJECT = "a certificate for another subject first"
    WRONG_PURPOSE = "a certificate for servers first"
    SILENT = "no answer, until somebody asks again"
    REFUSED = "a no, and the next request is signed"
    NEW_CA = "signed by a new CA"
    HARD_CUT = "the old certificate ends when the new one is signed"
    SUPERSEDED = "the request is replaced, and its answer comes late"
    TWICE = "the same answer arrives twice"
    SHORT = "a certificate of five days, shorter than an overlap"
    PASSWORD_OVERLAP = "a new password, beside the old one"
    PASSWORD_CHANGED = "a new password, and the old one ends"


ANSWERS: Final = tuple(manner for manner in Manner if not manner.name.startswith("PASSWORD"))
BAD: Final = {
    Manner.WRONG_KEY: {"wrong": "key"},
    Manner.WRONG_SUBJECT: {"wrong": "subject"},
    Manner.WRONG_PURPOSE: {"purpose": "server"},
}


@dataclass
class Clock:
    """The time of the simulation, for broker and stand-in."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Agenda:
    """What happens later, in order."""

    clock: Clock
    _events: list[tuple[datetime, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def after(self, delay: timedelta, act: Callable[[], object]) -> None:
        """Do `act` once `delay` has passed."""
        heappush(self._events, (self.clock.now + delay, next(self._numbers), act))

    def due(self) -> None:
        """Do everything whose time has come."""
        while self._events and self._events[0][0] <= self.clock.now:
            heappop(self._events)[2]()


@dataclass
class Contract:
    """What the partner knows of one login: the passwords that work, the newest first, and how long it signs for."""

    login: str
    lifetime: timedelta
    passwords: list[str]
    manners: list[Manner] = field(default_factory=list)  # of the requests to come


@dataclass
class Partner:
    """The people at the partner. `seen` counts what they did; every manner comes up before one is repeated."""

    standin: Standin
    agenda: Agenda
    dice: random.Random
    seen: Counter[Manner] = field(default_factory=Counter)
    _deck: list[Manner] = field(default_factory=list)

    def manner(self) -> Manner:
        """Return how the next request is dealt with."""
        if not self._deck:
            self._deck = [*[Manner.PROMPT] * len(ANSWERS), *self.dice.sample(ANSWERS, len(ANSWERS))]
        manner = self._deck.pop()
        self.seen[manner] += 1
        return manner

    def days(self, least: float, most: float) -> timedelta:
        """Return so many days, by chance."""
        return DAY * self.dice.uniform(least, most)

    def sign(self, contract: Contract, csr: str, **options: str) -> bytes:
        """Return the reply to `csr`, a zip file, signed now."""
        lifetime = {"lifetime": f"{contract.lifetime.days}d", "application": "reporting"}
        return self.standin.sign(csr, **{**lifetime, **options}).zip()

    def change_password(self, contract: Contract, *, overlap: bool) -> None:
        """Set another password."""
        self.seen[Manner.PASSWORD_OVERLAP if overlap else Manner.PASSWORD_CHANGED] += 1
        password = f"changed:{len(contract.passwords)}-{self.dice.getrandbits(64):x}"
        self.standin.registry.set_password(contract.login, password, overlap=overlap)
        contract.passwords = [password, *(contract.passwords[:1] if overlap else ())]
